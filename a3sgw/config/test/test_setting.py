"""
Tests of how the model declares its attributes, over all configuration classes.
"""

import inspect
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config import model
from a3sgw.config.setting import REQUIRED, ListKind, MapKind, NamedKind, ObjectKind, ObjectListKind, ScalarKind, settings_of
from a3sgw.config.test.loading import MIDDLEWARE_TYPES
from a3sgw.config.values import FrozenMap

CLASSES = [
    *(found for name, found in sorted(vars(model).items()) if inspect.isclass(found) and name.endswith("Config") and attrs.has(found)),
    *MIDDLEWARE_TYPES.values(),
]


class DeclarationTests(SynchronousTestCase):
    """
    The declarations are complete and agree with themselves.
    """

    def test_every_class_is_reachable(self):
        """
        Every configuration class can be written somewhere in a file.
        """
        found: set[type] = set()
        waiting: list[type] = [model.GatewayConfig]
        while waiting:
            cls = waiting.pop()
            if cls not in found:
                found.add(cls)
                for declared in settings_of(cls):
                    if isinstance(declared.kind, (ObjectKind, ObjectListKind)):
                        waiting.append(declared.kind.cls)
                    elif isinstance(declared.kind, NamedKind):
                        waiting.extend(MIDDLEWARE_TYPES.values() if declared.kind.is_typed else [declared.kind.cls])
        self.assertEqual(found, set(CLASSES))
        self.assertGreater(len(found), 45)

    def test_every_field_is_declared(self):
        """
        Every field is a label or a declared attribute with a sentence for the reference.
        """
        for cls in CLASSES:
            declared = {each.attribute: each for each in settings_of(cls)}
            for field in attrs.fields(cls):
                if field.name != "name" or field.name in declared:
                    self.assertTrue(declared[field.name].doc.strip(), f"{cls.__name__}.{field.name}")
            self.assertTrue((cls.__doc__ or "").strip())

    def test_keys(self):
        """
        An attribute is called in Python as in HCL, but for words that Python keeps for itself.
        """
        odd = [each.attribute for cls in CLASSES for each in settings_of(cls) if each.key != each.attribute]
        self.assertEqual(odd, ["from_"])

    def test_defaults_are_valid(self):
        """
        Every default is a value that could be written.
        """
        for cls in CLASSES:
            for declared in settings_of(cls):
                value, kind = declared.default, declared.kind
                if value is REQUIRED or value is None:
                    continue
                where = f"{cls.__name__}.{declared.key}"
                if isinstance(kind, ScalarKind):
                    self.assertEqual(kind.read(value, False), value, where)
                elif isinstance(kind, ListKind):
                    self.assertEqual(tuple(kind.item.read(item, False) for item in value), value, where)
                elif isinstance(kind, (MapKind, NamedKind)):
                    self.assertEqual(value, FrozenMap(), where)
                elif isinstance(kind, ObjectKind):
                    self.assertEqual(value, kind.cls(), where)
                else:
                    self.assertEqual(value, (), where)

    def test_secrets(self):
        """
        What is called like a secret is one.
        """
        words = ("password", "token", "keys", "hmac_key", "redis_url")
        for cls in CLASSES:
            for declared in settings_of(cls):
                if declared.key.endswith(words) and declared.kind.type_name != "bool":
                    self.assertTrue(declared.kind.is_secret, f"{cls.__name__}.{declared.key}")
        self.assertTrue(next(each for each in settings_of(MIDDLEWARE_TYPES["jwt"]) if each.key == "value").kind.is_secret)


class HandMadeTests(SynchronousTestCase):
    """
    A configuration may be made in Python.
    """

    def test_frozen_and_hashable(self):
        """
        Lists and dicts given by hand become values that can be hashed and compared.
        """

        def make():
            entrypoint: Any = {"name": "web", "address": ":80", "tcp_allowed_ips": ["10.0.0.0/8"]}
            balancer: Any = {"servers": [model.ServerConfig(url="http://a")]}
            service = model.ServiceConfig(name="s", load_balancer=model.LoadBalancerConfig(**balancer))
            whole: Any = {"entrypoints": {"web": model.EntrypointConfig(**entrypoint)}, "services": {"s": service}}
            return model.GatewayConfig(**whole)

        self.assertEqual(make(), make())
        self.assertEqual(hash(make()), hash(make()))
        with self.assertRaises(attrs.exceptions.FrozenInstanceError):
            make().workers = 2
        self.assertEqual(make().entrypoints["web"].allowed_ips, ("10.0.0.0/8",))

    def test_required(self):
        """
        What a file must say, Python must say too.
        """
        self.assertRaises(TypeError, model.EntrypointConfig, name="web")
        self.assertRaises(TypeError, model.RouterConfig, name="r", rule="x")
