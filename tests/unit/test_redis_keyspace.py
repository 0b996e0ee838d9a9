"""How many keys a server can have held at the moment of its copy, and what a restored one may lack."""

from __future__ import annotations

from ansible_collections.wellkept.maintenance.plugins.module_utils.redis import keyspace


def counts(**keys: int) -> keyspace.Keyspace:
    return {name[2:]: {"keys": number, "expires": 0} for name, number in keys.items()}


def test_databases_are_read_from_what_the_server_says() -> None:
    info = {"redis_version": "7.0.15", "db0": "keys=12,expires=3,avg_ttl=99", "db15": "keys=1,expires=0,avg_ttl=0"}
    assert keyspace.parse(info) == {"0": {"keys": 12, "expires": 3}, "15": {"keys": 1, "expires": 0}}


def test_fields_of_newer_servers_do_no_harm() -> None:
    info = {"db0": "keys=5,expires=1,avg_ttl=0,subexpiry=2", "dbs": "1"}
    assert keyspace.parse(info) == {"0": {"keys": 5, "expires": 1}}


def test_bounds_are_exact_when_nobody_writes() -> None:
    assert keyspace.bounds(counts(db0=7, db3=2), counts(db0=7, db3=2), 0) == {"0": [7, 7], "3": [2, 2]}


def test_bounds_hold_all_that_can_have_been_written() -> None:
    # 70 bytes of changes can have made or removed 10 keys, in any database.
    assert keyspace.bounds(counts(db0=100), counts(db0=90, db1=3), 70) == {"0": [80, 110], "1": [0, 13]}


def test_databases_are_in_the_order_of_their_numbers() -> None:
    assert list(keyspace.bounds(counts(db10=1, db2=1), {}, 0)) == ["2", "10"]


def test_a_restored_server_with_all_keys_is_as_it_should_be() -> None:
    assert keyspace.beyond(counts(db0=7), {"0": [7, 7]}, 0) == []


def test_a_lost_key_is_found() -> None:
    assert keyspace.beyond(counts(db0=6), {"0": [7, 7]}, 0) == ["database 0 has 6 keys instead of 7"]


def test_a_database_that_was_lost_is_found() -> None:
    assert keyspace.beyond({}, {"3": [2, 5]}, 0) == ["database 3 has 0 keys instead of 2 to 5"]


def test_keys_of_another_server_are_found() -> None:
    assert keyspace.beyond(counts(db0=7, db4=1), {"0": [7, 7]}, 0) == ["database 4 has 1 keys instead of 0"]


def test_expired_keys_are_not_missed() -> None:
    assert keyspace.beyond(counts(db0=4), {"0": [7, 7]}, 3) == []


def test_expired_keys_explain_only_as_many_missing_ones() -> None:
    problems = keyspace.beyond(counts(db0=5, db1=5), {"0": [7, 7], "1": [7, 7]}, 3)
    assert problems == ["4 keys are missing, and only 3 have expired"]


def test_expired_keys_explain_no_key_too_many() -> None:
    assert keyspace.beyond(counts(db0=8), {"0": [7, 7]}, 3) == ["database 0 has 8 keys instead of 7"]
