"""Config models as projects write them."""

from __future__ import annotations

import datetime
from decimal import Decimal

from django.core.exceptions import ValidationError
from django.db import models

from siteconfig.fields import SecretField
from siteconfig.models import ConfigModel


class ShopConfig(ConfigModel):
    """A second config model, with a field of every kind that needs care."""

    currency = models.CharField(max_length=3, default="EUR")
    tax = models.DecimalField(max_digits=5, decimal_places=2, default=Decimal("19.00"))
    opening = models.DurationField(default=datetime.timedelta(hours=8))
    opened = models.DateField(null=True, blank=True)
    tags = models.JSONField(default=list, blank=True)
    warehouse = models.ForeignKey(
        "testapp.Warehouse", on_delete=models.SET_NULL, null=True, blank=True
    )
    low = models.IntegerField(default=1)
    high = models.IntegerField(default=10)
    changed = models.DateTimeField(auto_now=True, null=True)
    voucher = SecretField(blank=True)  # a name that tells nothing

    class Meta:
        # Not the base's Meta: what keeps the table to one row must not depend on it.
        verbose_name = "shop"

    def clean(self) -> None:
        if self.low > self.high:
            raise ValidationError({"low": "Not above high."})


class Warehouse(models.Model):
    """What a setting may point to."""

    name = models.CharField(max_length=20)

    def __str__(self) -> str:
        return self.name


class Note(models.Model):
    """Any other table of the project."""

    text = models.CharField(max_length=20)


class ShopProxy(ShopConfig):
    """The same row under another class."""

    class Meta:
        proxy = True
