/* sql/dbpool--0.1.0--0.2.0.sql: what 0.2.0 has that 0.1.0 has not */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION dbpool UPDATE TO '0.2.0'" to load this file. \quit

-- The names of 0.1.0 were guarded, those that are new were not: what others have put under
-- them meanwhile could be called in place of ours. A superuser's own is none's plant.
DO $$
DECLARE
	planted text;
BEGIN
	SELECT pg_catalog.string_agg(p.name, ', ') INTO planted
	FROM (SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, p.proowner,
			p.oid::pg_catalog.regprocedure::pg_catalog.text
		FROM pg_catalog.pg_proc p
		WHERE p.pronamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace
			AND pg_catalog.starts_with(p.proname::pg_catalog.text, 'dbpool_')
		UNION ALL
		SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, t.typowner,
			t.oid::pg_catalog.regtype::pg_catalog.text
		FROM pg_catalog.pg_type t
		WHERE t.typnamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace
			AND t.typrelid OPERATOR(pg_catalog.=) 0::pg_catalog.oid
			AND pg_catalog.starts_with(t.typname::pg_catalog.text, 'dbpool_')) p (classid, oid, owner, name)
	WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
			JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
			WHERE d.classid OPERATOR(pg_catalog.=) p.classid AND d.objid OPERATOR(pg_catalog.=) p.oid
				AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
				AND d.deptype OPERATOR(pg_catalog.=) 'e' AND e.extname OPERATOR(pg_catalog.=) 'dbpool')
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r
			WHERE r.oid OPERATOR(pg_catalog.=) p.owner AND r.rolsuper);
	IF planted IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_function',
			MESSAGE = 'there are functions or types in schema @extschema@ that could be called in place of those of dbpool',
			DETAIL = planted,
			HINT = 'Look at them and drop them, or move them to another schema.';
	END IF;
END $$;
