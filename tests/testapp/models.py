"""Config models as projects write them."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

from siteconfig.fields import PublicURLField, SecretField
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
    hook = PublicURLField(blank=True, default="")

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


class URLField(models.URLField):  # type: ignore[type-arg] # not at run time
    """Django's, without its warning that the form will take another scheme in Django 6."""

    def formfield(self, **kwargs: Any) -> Any:
        return super().formfield(**{"assume_scheme": "https", **kwargs})


class EveryKind(ConfigModel):
    """A setting of every kind of field that there is."""

    class Size(models.IntegerChoices):
        SMALL = 1
        LARGE = 2

    class Color(models.TextChoices):
        RED = "red"
        BLUE = "blue"

    line = models.CharField(max_length=50, default="line", blank=True)
    text = models.TextField(default="text", blank=True)
    slug = models.SlugField(default="slug")
    email = models.EmailField(default="a@example.com", blank=True)
    url = URLField(default="https://example.com/")
    color = models.CharField(max_length=4, choices=Color.choices, default=Color.RED)
    size = models.IntegerField(choices=Size.choices, default=Size.SMALL)
    small = models.SmallIntegerField(default=1)
    integer = models.IntegerField(default=1)
    big = models.BigIntegerField(default=1)
    positive_small = models.PositiveSmallIntegerField(default=1)
    positive = models.PositiveIntegerField(default=1)
    positive_big = models.PositiveBigIntegerField(default=1)
    maybe_integer = models.IntegerField(null=True, blank=True)
    number = models.FloatField(default=1.5)
    decimal = models.DecimalField(max_digits=20, decimal_places=4, default=Decimal("1.5000"))
    flag = models.BooleanField(default=False)
    maybe_flag = models.BooleanField(null=True, blank=True)
    date = models.DateField(default=datetime.date(2024, 2, 29))
    time = models.TimeField(default=datetime.time(8, 30))
    moment = models.DateTimeField(
        default=datetime.datetime(2024, 2, 29, 8, 30, tzinfo=datetime.UTC)
    )
    duration = models.DurationField(default=datetime.timedelta(minutes=5))
    data = models.JSONField(default=list, blank=True)
    maybe_data = models.JSONField(null=True, blank=True)
    address = models.GenericIPAddressField(default="192.0.2.1")
    uuid = models.UUIDField(default=uuid.UUID("12345678-1234-5678-1234-567812345678"))
    blob = models.BinaryField(default=b"\x00\xff")
    document = models.FileField(blank=True, default="")
    image = models.ImageField(blank=True, default="")
    warehouse = models.ForeignKey(Warehouse, on_delete=models.SET_NULL, null=True, blank=True)
    note = models.OneToOneField("testapp.Note", on_delete=models.SET_NULL, null=True, blank=True)

    class Meta:
        verbose_name = "every kind"
        constraints = [
            models.CheckConstraint(
                condition=~models.Q(positive=13), name="testapp_every_kind_not_13"
            )
        ]
