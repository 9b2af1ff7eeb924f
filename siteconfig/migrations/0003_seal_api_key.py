from __future__ import annotations

from typing import Any

from django.db import migrations

import siteconfig.fields
from siteconfig import crypto
from siteconfig.secret import Secret


def seal(apps: Any, schema_editor: Any) -> None:
    """Seal the key that is stored in plain, if there is a key to seal it with.

    Without one it stays as it is and goes on being read; a check asks for a key then.
    """
    model = apps.get_model('siteconfig', 'SiteConfiguration')
    if model._meta.swapped or crypto.obstacle():
        return
    rows = model._base_manager.using(schema_editor.connection.alias)
    for row in rows.all():
        if row.api_key.is_stored_in_plain:
            rows.filter(pk=row.pk).update(api_key=Secret(row.api_key))


def open_again(apps: Any, schema_editor: Any) -> None:
    """Store it in plain, as the release before reads it."""
    model = apps.get_model('siteconfig', 'SiteConfiguration')
    if model._meta.swapped:
        return
    rows = model._base_manager.using(schema_editor.connection.alias)
    for row in rows.all():
        if row.api_key.is_unreadable:
            raise ValueError(
                'No key opens the stored api_key, which the release before reads in plain. Put '
                'the key that sealed it back into SITECONFIG["SECRET_KEYS"], or clear the setting.'
            )
        with schema_editor.connection.cursor() as cursor:
            # By hand, for the field would seal it.
            table, column = map(
                schema_editor.quote_name,
                (model._meta.db_table, model._meta.get_field('api_key').column),
            )
            cursor.execute(f'UPDATE {table} SET {column} = %s', [str(row.api_key)])


class Migration(migrations.Migration):

    dependencies = [
        ('siteconfig', '0002_config_process'),
    ]

    operations = [
        migrations.AlterField(
            model_name='siteconfiguration',
            name='api_key',
            field=siteconfig.fields.SecretField(blank=True, default='', help_text='The key sent with requests to the external service. Not set: none is sent.', max_length=200, verbose_name='API key'),
        ),
        migrations.RunPython(seal, open_again, hints={'model_name': 'siteconfiguration'}),
    ]
