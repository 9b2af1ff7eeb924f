"""Factories of what tests need in the database."""

from __future__ import annotations

from typing import Any

import factory
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from factory.declarations import Sequence
from factory.helpers import post_generation

from siteconfig.models import SiteConfiguration


class SiteConfigurationFactory(factory.django.DjangoModelFactory[SiteConfiguration]):
    """The one row, with the settings that are given."""

    class Meta:
        model = SiteConfiguration

    @classmethod
    def _create(cls, model_class: Any, *args: Any, **kwargs: Any) -> SiteConfiguration:
        row = model_class.objects.filter(pk=1).first() or model_class()
        for name, value in kwargs.items():
            setattr(row, name, value)
        row.save()
        return row


class UserFactory(factory.django.DjangoModelFactory[Any]):
    """A user who may do nothing, or what ``permissions`` names: ``"change_siteconfiguration"``."""

    class Meta:
        model = get_user_model()
        skip_postgeneration_save = True

    username = Sequence("user{}".format)

    @post_generation  # type: ignore[untyped-decorator] # factory_boy has no types here
    def permissions(self: Any, create: bool, names: Any, **kwargs: Any) -> None:
        for name in names or ():
            self.user_permissions.add(Permission.objects.get(codename=name))


class StaffFactory(UserFactory):
    """A user who may log in to the admin."""

    is_staff = True


class AdminFactory(StaffFactory):
    """A user who may do everything."""

    is_superuser = True
