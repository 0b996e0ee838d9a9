# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The queries for what one database consists of: each gives ``name`` and ``facts``.

They read the catalogs themselves, which a snapshot shows as they were, and no function that looks at what is there
now (pg_get_viewdef and its like). Expressions are compared by a hash of PostgreSQL's own form of them, which is the
same in a restored data directory, to the number of each object.
"""

# ruff: noqa: S608 - put together from what stands in this file alone

from __future__ import annotations

# Objects of the server itself, and of sessions.
_OURS = "n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_'"
_ACL = "pg_catalog.array_to_string({}, ' ')"
_OWNER = "(SELECT rolname FROM pg_catalog.pg_roles r WHERE r.oid = {})"


def _owner(column: str) -> str:
    return _OWNER.format(column)


def _acl(column: str) -> str:
    return _ACL.format(column)


def _hash(expression: str) -> str:
    return f"pg_catalog.md5(({expression})::text)"


_SCHEMAS = f"""
SELECT pg_catalog.quote_ident(n.nspname) AS name, jsonb_build_object(
    'owner', {_owner("n.nspowner")}, 'rights', {_acl("n.nspacl")}) AS facts
FROM pg_catalog.pg_namespace n WHERE {_OURS}
"""
_RELATIONS = f"""
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, jsonb_build_object(
    'kind', c.relkind, 'owner', {_owner("c.relowner")}, 'rights', {_acl("c.relacl")},
    'persistence', c.relpersistence, 'row security', c.relrowsecurity, 'forced row security', c.relforcerowsecurity,
    'replica identity', c.relreplident, 'options', {_acl("c.reloptions")},
    'access method', (SELECT amname FROM pg_catalog.pg_am WHERE oid = c.relam),
    'partition bound', {_hash("c.relpartbound")},
    'partition key', (SELECT {_hash("p.partstrat::text || p.partattrs::text || coalesce(p.partexprs::text, '')")}
                      FROM pg_catalog.pg_partitioned_table p WHERE p.partrelid = c.oid),
    'parents', (SELECT pg_catalog.string_agg(pn.nspname || '.' || pc.relname, ', ' ORDER BY i.inhseqno)
                FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class pc ON pc.oid = i.inhparent
                JOIN pg_catalog.pg_namespace pn ON pn.oid = pc.relnamespace WHERE i.inhrelid = c.oid),
    'definition', (SELECT {_hash("pg_catalog.string_agg(w.ev_action::text, ' ' ORDER BY w.rulename)")}
                   FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid)) AS facts
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE {_OURS} AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')
"""
_COLUMNS = f"""
SELECT pg_catalog.format('%I.%I.%I', n.nspname, c.relname, a.attname) AS name, jsonb_build_object(
    'type', pg_catalog.format_type(a.atttypid, a.atttypmod), 'number', a.attnum, 'not null', a.attnotnull,
    'identity', a.attidentity, 'generated', a.attgenerated::text, 'rights', {_acl("a.attacl")},
    'collation', (SELECT collname FROM pg_catalog.pg_collation WHERE oid = a.attcollation),
    'storage', a.attstorage, 'options', {_acl("a.attoptions")},
    'default', (SELECT {_hash("d.adbin")} FROM pg_catalog.pg_attrdef d
                WHERE d.adrelid = c.oid AND d.adnum = a.attnum)) AS facts
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE {_OURS} AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND a.attnum > 0 AND NOT a.attisdropped
"""
_CONSTRAINTS = f"""
SELECT pg_catalog.format('%I on %I.%I', k.conname, n.nspname, coalesce(c.relname, y.typname)) AS name,
       jsonb_build_object('kind', k.contype, 'columns', k.conkey, 'validated', k.convalidated,
    'enforced', to_jsonb(k) ->> 'conenforced', 'deferrable', k.condeferrable, 'deferred', k.condeferred,
    'references', (SELECT fn.nspname || '.' || fc.relname FROM pg_catalog.pg_class fc
                   JOIN pg_catalog.pg_namespace fn ON fn.oid = fc.relnamespace WHERE fc.oid = k.confrelid),
    'referenced columns', k.confkey, 'on update', k.confupdtype, 'on delete', k.confdeltype,
    'definition', {_hash("coalesce(k.conbin::text, '') || coalesce(k.conexclop::text, '')")}) AS facts
FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_namespace n ON n.oid = k.connamespace
LEFT JOIN pg_catalog.pg_class c ON c.oid = k.conrelid LEFT JOIN pg_catalog.pg_type y ON y.oid = k.contypid
WHERE {_OURS}
"""
_INDEXES = f"""
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, jsonb_build_object(
    'table', t.relname, 'columns', i.indkey::text, 'unique', i.indisunique, 'primary', i.indisprimary,
    'valid', i.indisvalid, 'ready', i.indisready, 'exclusion', i.indisexclusion,
    'nulls not distinct', to_jsonb(i) ->> 'indnullsnotdistinct', 'order', i.indoption::text,
    'operator classes', i.indclass::text, 'collations', i.indcollation::text,
    'access method', (SELECT amname FROM pg_catalog.pg_am WHERE oid = c.relam), 'options', {_acl("c.reloptions")},
    'definition', {_hash("coalesce(i.indexprs::text, '') || coalesce(i.indpred::text, '')")}) AS facts
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE {_OURS}
"""
_BODY = (
    "pg_catalog.concat_ws(' ', p.prosrc, to_jsonb(p) ->> 'prosqlbody', p.proargdefaults, p.proargnames, p.proargmodes)"
)
_FUNCTIONS = f"""
SELECT pg_catalog.format('%I.%I(%s)', n.nspname, p.proname,
           (SELECT pg_catalog.string_agg(pg_catalog.format_type(a.typ, NULL), ', ' ORDER BY a.number)
            FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a (typ, number))) AS name, jsonb_build_object(
    'kind', p.prokind, 'owner', {_owner("p.proowner")}, 'rights', {_acl("p.proacl")},
    'language', (SELECT lanname FROM pg_catalog.pg_language WHERE oid = p.prolang),
    'result', pg_catalog.format_type(p.prorettype, NULL), 'set', p.proretset, 'security definer', p.prosecdef,
    'strict', p.proisstrict, 'volatility', p.provolatile, 'parallel', p.proparallel, 'leakproof', p.proleakproof,
    'settings', {_hash("p.proconfig")}, 'library', p.probin,
    'definition', {_hash(_BODY)}
    ) AS facts
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE {_OURS}
"""
_TRIGGERS = f"""
SELECT pg_catalog.format('%I on %I.%I', g.tgname, n.nspname, c.relname) AS name, jsonb_build_object(
    'enabled', g.tgenabled, 'type', g.tgtype, 'columns', g.tgattr::text,
    'function', (SELECT fn.nspname || '.' || f.proname FROM pg_catalog.pg_proc f
                 JOIN pg_catalog.pg_namespace fn ON fn.oid = f.pronamespace WHERE f.oid = g.tgfoid),
    'definition', {_hash("coalesce(g.tgqual::text, '') || pg_catalog.encode(g.tgargs, 'hex')")}) AS facts
FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE {_OURS} AND (NOT g.tgisinternal OR g.tgenabled <> 'O')
"""
_POLICIES = f"""
SELECT pg_catalog.format('%I on %I.%I', p.polname, n.nspname, c.relname) AS name, jsonb_build_object(
    'command', p.polcmd, 'permissive', p.polpermissive,
    'roles', (SELECT pg_catalog.string_agg(coalesce(r.rolname, 'public'), ', ' ORDER BY r.rolname)
              FROM unnest(p.polroles) AS u (role) LEFT JOIN pg_catalog.pg_roles r ON r.oid = u.role),
    'definition', {_hash("coalesce(p.polqual::text, '') || coalesce(p.polwithcheck::text, '')")}) AS facts
FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {_OURS}
"""
# Types of tables' rows and arrays come with what they belong to.
_TYPES = f"""
SELECT pg_catalog.format('%I.%I', n.nspname, y.typname) AS name, jsonb_build_object(
    'kind', y.typtype, 'owner', {_owner("y.typowner")}, 'rights', {_acl("y.typacl")}, 'not null', y.typnotnull,
    'base type', CASE WHEN y.typbasetype <> 0 THEN pg_catalog.format_type(y.typbasetype, y.typtypmod) END,
    'values', (SELECT pg_catalog.string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder)
               FROM pg_catalog.pg_enum e WHERE e.enumtypid = y.oid),
    'default', {_hash("y.typdefaultbin")}) AS facts
FROM pg_catalog.pg_type y JOIN pg_catalog.pg_namespace n ON n.oid = y.typnamespace
LEFT JOIN pg_catalog.pg_class c ON c.oid = y.typrelid
WHERE {_OURS} AND (y.typtype IN ('d', 'e', 'r') OR (y.typtype = 'c' AND c.relkind = 'c')
                   OR (y.typtype = 'b' AND y.typelem = 0))
"""
_EXTENSIONS = f"""
SELECT pg_catalog.quote_ident(e.extname) AS name, jsonb_build_object('version', e.extversion,
    'owner', {_owner("e.extowner")}, 'schema', (SELECT nspname FROM pg_catalog.pg_namespace WHERE oid = e.extnamespace),
    'settings', e.extcondition) AS facts
FROM pg_catalog.pg_extension e
"""
_DEFAULT_RIGHTS = f"""
SELECT pg_catalog.format('of %I%s for objects of kind %s', r.rolname, coalesce(' in ' || n.nspname, ''),
                         d.defaclobjtype) AS name, jsonb_build_object('rights', {_acl("d.defaclacl")}) AS facts
FROM pg_catalog.pg_default_acl d JOIN pg_catalog.pg_roles r ON r.oid = d.defaclrole
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace
"""
_EVENT_TRIGGERS = f"""
SELECT pg_catalog.quote_ident(e.evtname) AS name, jsonb_build_object('event', e.evtevent, 'enabled', e.evtenabled,
    'owner', {_owner("e.evtowner")}, 'tags', {_acl("e.evttags")},
    'function', (SELECT proname FROM pg_catalog.pg_proc WHERE oid = e.evtfoid)) AS facts
FROM pg_catalog.pg_event_trigger e
"""
_PUBLICATIONS = f"""
SELECT pg_catalog.quote_ident(p.pubname) AS name, jsonb_build_object('owner', {_owner("p.pubowner")},
    'all tables', p.puballtables, 'tables', (
        SELECT pg_catalog.string_agg(n.nspname || '.' || c.relname, ', ' ORDER BY n.nspname, c.relname)
        FROM pg_catalog.pg_publication_rel m JOIN pg_catalog.pg_class c ON c.oid = m.prrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE m.prpubid = p.oid)) AS facts
FROM pg_catalog.pg_publication p
"""
# What a sequence is; where it stands is not seen through a snapshot: see ``listing.sequence_values``.
_SEQUENCES = f"""
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, jsonb_build_object(
    'type', pg_catalog.format_type(s.seqtypid, NULL), 'increment', s.seqincrement, 'minimum', s.seqmin,
    'maximum', s.seqmax, 'start', s.seqstart, 'cycles', s.seqcycle) AS facts
FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {_OURS}
"""

QUERIES = {
    "schema": _SCHEMAS,
    "relation": _RELATIONS,
    "column": _COLUMNS,
    "constraint": _CONSTRAINTS,
    "index": _INDEXES,
    "function": _FUNCTIONS,
    "trigger": _TRIGGERS,
    "policy": _POLICIES,
    "type": _TYPES,
    "extension": _EXTENSIONS,
    "default rights": _DEFAULT_RIGHTS,
    "event trigger": _EVENT_TRIGGERS,
    "publication": _PUBLICATIONS,
    "sequence": _SEQUENCES,
}
