-- Who may do what. Applied on every install after the functions, by whoever installs: what that role may not do is left
-- as it is and told in a notice, since a store without the three roles serves its owner all the same.

-- Roles belong to the server, and an advisory lock to one database: an install into another database may make or grant
-- them at this very moment ("tuple concurrently updated" is an internal error). Whoever comes second looks again.
do $access$
declare
    v_role name;
    v_tries integer := 0;
    v_splits constant boolean := current_setting('server_version_num')::integer >= 160000;
begin
    loop
        begin
            foreach v_role in array array['memory_plugin_owner', 'memory_plugin_api', 'memory_plugin_reader']::name[] loop
                if to_regrole(v_role) is null then
                    execute format('create role %I nologin', v_role);
                end if;
            end loop;
            -- From 16 on membership is in parts, and who makes a role gets the part to administer it only.
            if not pg_has_role(current_user, 'memory_plugin_owner', 'usage')
                or (v_splits and not pg_has_role(current_user, 'memory_plugin_owner', 'set'))
            then
                execute 'grant memory_plugin_owner to current_user'
                    || case when v_splits then ' with inherit true, set true' else '' end;
            end if;
            return;
        exception
            when insufficient_privilege then
                if to_regrole(v_role) is null then
                    raise notice 'roles not created: % may not create roles', current_user
                        using hint = 'As a superuser: create role memory_plugin_owner; create role memory_plugin_api; create role memory_plugin_reader;';
                end if;
                return;
            when duplicate_object or unique_violation or internal_error then
                v_tries := v_tries + 1;
                if v_tries = 50 then
                    raise;
                end if;
                perform pg_sleep(0.02 * (1 + random()));
        end;
    end loop;
end
$access$;

-- The tables' owner. A member (or a superuser) hands the objects to memory_plugin_owner; anybody else keeps them.
do $access$
declare
    v_owner constant name := 'memory_plugin_owner';
    v_splits constant boolean := current_setting('server_version_num')::integer >= 160000;
    v_schema_owner oid;
    v_object record;
begin
    if to_regrole(v_owner) is null then
        return;
    end if;
    if not pg_has_role(current_user, v_owner, 'usage')
        or (v_splits and not pg_has_role(current_user, v_owner, 'set'))
    then
        raise insufficient_privilege;
    end if;
    select n.nspowner into v_schema_owner from pg_namespace as n where n.nspname = 'memory_plugin';
    if v_schema_owner <> to_regrole(v_owner) then
        if pg_has_role(v_schema_owner, 'usage') then
            execute format('grant create, usage on schema memory_plugin to %I', v_owner);
        elsif not (
            has_schema_privilege(v_owner, 'memory_plugin', 'create') and has_schema_privilege(v_owner, 'memory_plugin', 'usage')
        ) then
            raise notice 'objects stay with %: memory_plugin_owner may not create in the schema memory_plugin', current_user
                using hint = format('As %I, its owner: grant create, usage on schema memory_plugin to memory_plugin_owner; Then install again.', pg_get_userbyid(v_schema_owner));
            return;
        end if;
    end if;
    for v_object in
        select
            format(
                'alter %s %s owner to %I',
                case c.relkind when 'S' then 'sequence' when 'v' then 'view' else 'table' end,
                c.oid::regclass, v_owner
            ) as statement
        from pg_class as c
        where c.relnamespace = 'memory_plugin'::regnamespace and c.relkind in ('r', 'p', 'v')
            and c.relowner <> to_regrole(v_owner)
            and not exists (
                select from pg_depend as d
                where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
            )
        union all
        select format('alter routine %s owner to %I', p.oid::regprocedure, v_owner)
        from pg_proc as p
        where p.pronamespace = 'memory_plugin'::regnamespace and p.proowner <> to_regrole(v_owner)
            and not exists (
                select from pg_depend as d
                where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
            )
        union all
        select format('alter type %s owner to %I', t.oid::regtype, v_owner)
        from pg_type as t
        inner join pg_class as c on t.typrelid = c.oid and c.relkind = 'c'
        where t.typnamespace = 'memory_plugin'::regnamespace and t.typowner <> to_regrole(v_owner)
    loop
        execute v_object.statement;
    end loop;
exception
    when insufficient_privilege then
        raise notice 'objects stay with %: it may not hand them to memory_plugin_owner', current_user
            using hint = format('As a superuser: grant memory_plugin_owner to the role that installs. Its members reach every store of this server whose database they may connect to. Where those are others'' too, first: revoke connect, temporary on database %1$I from public; grant connect on database %1$I to the roles that use it.', current_database());
end
$access$;

-- Row-level security: the owner's functions see every row, a reader the namespaces of its setting, anybody else none.
-- Changed only where it differs: each of these statements locks the table against its readers.
do $access$
declare
    v_wanted record;
begin
    for v_wanted in
        select
            c.oid::regclass as tab, p.name as policy, r.oid as role_oid, r.rolname as role,
            case p.name
                when 'memory_plugin_owner' then 'to %I using (true) with check (true)'
                else format(
                    'for select to %%I using (%I = any (memory_plugin._session_namespaces()))',
                    case c.relname when 'memory_namespaces' then 'name' else 'namespace' end
                )
            end as rule,
            exists (select from pg_policy as old where old.polrelid = c.oid and old.polname = p.name) as replaces
        from pg_class as c
        cross join (values ('memory_plugin_owner'), ('memory_plugin_reader')) as p (name)
        inner join pg_roles as r
            on case p.name when 'memory_plugin_owner' then r.oid = c.relowner else r.rolname = p.name end
        where c.oid in (
                'memory_plugin.memory_namespaces'::regclass, 'memory_plugin.memory_records'::regclass,
                'memory_plugin.memory_vectors'::regclass, 'memory_plugin.memory_sketches'::regclass,
                'memory_plugin.memory_lengths'::regclass, 'memory_plugin.embedding_provider'::regclass
            )
            -- A reader searches through search(): what that reads beside the memories is no concern of its own. The
            -- provider's key is nobody's, not even of those who may read all data.
            and (c.relname in ('memory_namespaces', 'memory_records') or p.name = 'memory_plugin_owner')
            and not exists (
                select from pg_policy as have
                where have.polrelid = c.oid and have.polname = p.name and have.polroles = array[r.oid] and have.polpermissive
                    and (have.polcmd, pg_get_expr(have.polqual, have.polrelid))
                    = (case p.name when 'memory_plugin_owner' then '*' else 'r' end::"char", case p.name
                        when 'memory_plugin_owner' then 'true'
                        else format(
                            '(%I = ANY (memory_plugin._session_namespaces()))',
                            case c.relname when 'memory_namespaces' then 'name' else 'namespace' end
                        )
                    end)
            )
    loop
        if v_wanted.replaces then
            execute format('drop policy %I on %s', v_wanted.policy, v_wanted.tab);
        end if;
        execute format('create policy %I on %s ', v_wanted.policy, v_wanted.tab) || format(v_wanted.rule, v_wanted.role);
    end loop;
    for v_wanted in
        select c.oid::regclass as tab
        from pg_class as c
        where c.oid in (
                'memory_plugin.memory_namespaces'::regclass, 'memory_plugin.memory_records'::regclass,
                'memory_plugin.memory_vectors'::regclass, 'memory_plugin.memory_sketches'::regclass,
                'memory_plugin.memory_lengths'::regclass, 'memory_plugin.embedding_provider'::regclass
            )
            and not (c.relrowsecurity and c.relforcerowsecurity)
    loop
        execute format('alter table %s enable row level security, force row level security', v_wanted.tab);
    end loop;
end
$access$;

-- The types and operators of vector stand in a schema of their own, which not everybody may use. Where the role may use
-- it and not hand that on, a grant is no error and does nothing.
do $access$
declare
    v_schema constant regnamespace := '@extschema:vector@';
    v_may constant boolean := (select pg_has_role(n.nspowner, 'usage') from pg_namespace as n where n.oid = v_schema)
        or has_schema_privilege(v_schema, 'usage with grant option');
    v_lacking text;
begin
    -- Ours is seen to below.
    if v_schema = 'memory_plugin'::regnamespace then
        return;
    end if;
    select string_agg(r.rolname, ', ' order by r.rolname) into v_lacking
    from pg_roles as r
    where r.rolname in ('memory_plugin_owner', 'memory_plugin_api', 'memory_plugin_reader')
        and not has_schema_privilege(r.oid, v_schema, 'usage');
    if v_lacking is null then
        return;
    end if;
    if v_may then
        execute format('grant usage on schema %s to %s', v_schema, v_lacking);
    else
        raise notice 'usage on the schema of vector not granted by %', current_user
            using hint = format('As its owner: grant usage on schema %s to %s;', v_schema, v_lacking);
    end if;
end
$access$;

-- Where default privileges keep functions and types from public, those of vector are for their owner only, and the
-- store fails at an operator with "permission denied for function". All that this role may grant it grants to our
-- roles; of the rest, what the store uses is told.
do $access$
declare
    -- What the store calls, by casts and operators too; the installer reads this list as well.
    v_used constant text[] := array[
        'vector', 'halfvec',
        'array_to_vector(real[],integer,boolean)', 'vector(vector,integer,boolean)',
        'vector_to_halfvec(vector,integer,boolean)', 'halfvec(halfvec,integer,boolean)',
        'halfvec_to_vector(halfvec,integer,boolean)', 'subvector(halfvec,integer,integer)',
        'vector_dims(vector)', 'vector_norm(vector)', 'l2_normalize(vector)', 'binary_quantize(vector)',
        'vector_add(vector,vector)', 'vector_sub(vector,vector)', 'vector_mul(vector,vector)',
        'vector_concat(vector,vector)', 'vector_eq(vector,vector)', 'vector_ne(vector,vector)',
        'halfvec_eq(halfvec,halfvec)', 'cosine_distance(vector,vector)',
        'halfvec_negative_inner_product(halfvec,halfvec)', 'hamming_distance(bit,bit)'
    ];
    v_wanted record;
    v_left text := '';
begin
    for v_wanted in
        -- These come first: else every function of the database is looked at anew for each of them.
        with parts as materialized (
            select d.classid, d.objid
            from pg_extension as e
            inner join pg_depend as d on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid and d.deptype = 'e'
            where e.extname = 'vector'
        ),
        -- Rights that nobody has changed are null, and public has them.
        members as (
            select
                'execute on routine' as privilege, p.oid, p.oid::regprocedure::text as name,
                pg_has_role(p.proowner, 'usage') or has_function_privilege(p.oid, 'execute with grant option') as may
            from parts as v
            inner join pg_proc as p on v.classid = 'pg_proc'::regclass and p.oid = v.objid
            where p.proacl is not null
            union all
            select
                'usage on type', t.oid, t.oid::regtype::text,
                pg_has_role(t.typowner, 'usage') or has_type_privilege(t.oid, 'usage with grant option')
            from parts as v
            inner join pg_type as t on v.classid = 'pg_type'::regclass and t.oid = v.objid
            where t.typacl is not null
        ),
        lacking as (
            select m.privilege, m.name, m.may, string_agg(quote_ident(r.rolname), ', ' order by r.rolname) as roles
            from members as m
            cross join pg_roles as r
            where (
                    r.rolname in ('memory_plugin_api', 'memory_plugin_reader')
                    or r.oid = (select c.relowner from pg_class as c where c.oid = 'memory_plugin.memory_records'::regclass)
                )
                and not case
                    when m.privilege = 'usage on type' then has_type_privilege(r.oid, m.oid, 'usage')
                    else has_function_privilege(r.oid, m.oid, 'execute')
                end
                and (m.may or replace(m.name, '@extschema:vector@.', '') = any (v_used))
            group by m.privilege, m.name, m.may
        )
        select
            l.may,
            format('grant %s %s to %s', l.privilege, string_agg(l.name, ', ' order by l.name), l.roles) as statement
        from lacking as l
        group by l.may, l.privilege, l.roles
        order by l.privilege desc, l.roles
    loop
        if v_wanted.may then
            execute v_wanted.statement;
        else
            v_left := v_left || v_wanted.statement || '; ';
        end if;
    end loop;
    if v_left <> '' then
        raise notice 'use of the functions and types of vector not granted by %', current_user
            using hint = 'As their owner or a superuser: ' || rtrim(v_left);
    end if;
end
$access$;

-- No one may do anything by default, then each role its part.
do $access$
declare
    -- What a reader may run; the installer's verify reads this list too.
    v_reader constant name[] := array['search', 'get_memory', 'find_duplicates', 'health', '_session_namespaces'];
    v_nobody text := 'public';
    v_object record;
    v_schema_owner oid;
    v_role name;
    -- What the schema's owner has to run.
    v_left text := '';
    -- What decides for the whole store: how memories are kept, where they are sent, with whose key; verify reads this too.
    v_owners constant name[] := array[
        'configure', 'configure_embedding', 'remove_embedding_provider', 'embedding_provider', 'test_embedding'
    ];
begin
    -- The owner of the store, which may be one of these, keeps what it has.
    select concat_ws(', ', v_nobody, string_agg(quote_ident(r.rolname), ', ')) into v_nobody
    from pg_roles as r
    where r.rolname in ('memory_plugin_api', 'memory_plugin_reader')
        and r.oid <> (select c.relowner from pg_class as c where c.oid = 'memory_plugin.memory_records'::regclass);
    for v_object in
        select c.oid::regclass as name
        from pg_class as c
        where c.relnamespace = 'memory_plugin'::regnamespace and c.relkind in ('r', 'p', 'v', 'S')
            and not exists (
                select from pg_depend as d
                where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
            )
    loop
        execute format('revoke all on table %s from %s', v_object.name, v_nobody);
    end loop;
    for v_object in
        select p.oid::regprocedure as signature, p.proname
        from pg_proc as p
        where p.pronamespace = 'memory_plugin'::regnamespace
            and not exists (
                select from pg_depend as d
                where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
            )
    loop
        execute format('revoke all on routine %s from %s', v_object.signature, v_nobody);
        if to_regrole('memory_plugin_api') is not null and v_object.proname !~ '^_'
            and v_object.proname <> all (v_owners)
        then
            execute format('grant execute on routine %s to memory_plugin_api', v_object.signature);
        end if;
        if to_regrole('memory_plugin_reader') is not null and v_object.proname = any (v_reader) then
            execute format('grant execute on routine %s to memory_plugin_reader', v_object.signature);
        end if;
    end loop;
    select n.nspowner into v_schema_owner from pg_namespace as n where n.nspname = 'memory_plugin';
    foreach v_role in array array['memory_plugin_api', 'memory_plugin_reader']::name[] loop
        if to_regrole(v_role) is null then
            continue;
        elsif pg_has_role(v_schema_owner, 'usage') then
            execute format('revoke create on schema memory_plugin from %I', v_role);
            execute format('grant usage on schema memory_plugin to %I', v_role);
        else
            if has_schema_privilege(v_role, 'memory_plugin', 'create') and to_regrole(v_role) <> v_schema_owner then
                v_left := v_left || format('revoke create on schema memory_plugin from %I; ', v_role);
            end if;
            if not has_schema_privilege(v_role, 'memory_plugin', 'usage') then
                v_left := v_left || format('grant usage on schema memory_plugin to %I; ', v_role);
            end if;
        end if;
    end loop;
    if v_left <> '' then
        raise notice 'rights to the schema memory_plugin not set: it belongs to %, and % may not', pg_get_userbyid(v_schema_owner), current_user
            using hint = 'As its owner: ' || rtrim(v_left);
    end if;
    if to_regrole('memory_plugin_reader') is not null then
        grant select on memory_plugin.memory_namespaces, memory_plugin.memory_records to memory_plugin_reader;
    end if;
end
$access$;
