"""
Tests of the immutable values of the model.
"""

import json
import pickle

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.setting import to_json
from a3sgw.config.values import FrozenMap, Secret, reveal


class FrozenMapTests(SynchronousTestCase):
    """
    `FrozenMap` is a mapping that can be compared, hashed and never changed.
    """

    def test_order(self):
        """
        A map keeps the order of the file.
        """
        self.assertEqual(list(FrozenMap([("b", 1), ("a", 2)])), ["b", "a"])
        self.assertEqual(list(FrozenMap([("b", 1), ("a", 2)]).items()), [("b", 1), ("a", 2)])
        self.assertEqual(list(FrozenMap([("b", 1), ("a", 2)]).values()), [1, 2])

    def test_value(self):
        """
        Maps with the same items are equal and hash alike, whatever their order.
        """
        one, other = FrozenMap([("a", 1), ("b", 2)]), FrozenMap([("b", 2), ("a", 1)])
        self.assertEqual(one, other)
        self.assertEqual(hash(one), hash(other))
        self.assertNotEqual(one, FrozenMap({"a": 1}))
        self.assertNotEqual(one, {"a": 1, "b": 2})

    def test_frozen(self):
        """
        A map does not follow the dict it was made of, and has no item assignment.
        """
        source = {"a": 1}
        made = FrozenMap(source)
        source["a"] = 2
        self.assertEqual(made["a"], 1)
        with self.assertRaises(TypeError):
            made["a"] = 3

    def test_changed_copies(self):
        """
        A map with other items is a new map.
        """
        made = FrozenMap({"a": 1})
        self.assertEqual(made.updated({"b": 2}), FrozenMap({"a": 1, "b": 2}))
        self.assertEqual(made.without("a"), FrozenMap())
        self.assertEqual(made, FrozenMap({"a": 1}))
        self.assertIs(FrozenMap.of(made), made)

    def test_pickle(self):
        """
        A map can be sent to another process, where texts hash differently.
        """
        made = FrozenMap({"a": 1})
        hash(made)
        copy = pickle.loads(pickle.dumps(made))
        self.assertEqual(copy, made)
        self.assertIsNone(copy._hash)


class SecretTests(SynchronousTestCase):
    """
    `Secret` is compared by its text and shows a mask.
    """

    def test_mask(self):
        """
        Nothing that shows an object shows a secret.
        """
        secret = Secret("hunter2")
        shown = [str(secret), repr(secret), f"{secret}", f"{secret!r:>20}", repr([secret]), json.dumps(to_json(secret))]
        for text in shown:
            self.assertNotIn("hunter2", text)
        self.assertEqual(str(secret), "«secret»")
        self.assertEqual(to_json(secret), "«secret»")

    def test_reveal(self):
        """
        The text is there for who asks.
        """
        self.assertEqual(Secret("hunter2").reveal(), "hunter2")
        self.assertEqual((reveal("a"), reveal(Secret("b"))), ("a", "b"))

    def test_value(self):
        """
        Equal secrets are equal, so that a reload can tell whether one changed; a text is not a secret.
        """
        self.assertEqual(Secret("a"), Secret("a"))
        self.assertEqual(hash(Secret("a")), hash(Secret("a")))
        self.assertNotEqual(Secret("a"), Secret("b"))
        self.assertNotEqual(Secret("a"), "a")

    def test_frozen(self):
        """
        A secret does not change, and survives the way to another process.
        """
        with self.assertRaises(AttributeError):
            Secret("a")._text = "b"
        self.assertEqual(pickle.loads(pickle.dumps(Secret("a"))), Secret("a"))
