-- The rules of the contract that more than one function keeps. A broken rule raises MP001 and changes nothing.

create or replace function memory_plugin._check_namespace(p_field text, p_name text)
returns void
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    if p_name is null then
        raise exception using errcode = 'MP001', message = format('%s is required', p_field);
    end if;
    if char_length(p_name) > @namespace_length@ then
        raise exception using errcode = 'MP001',
            message = format('%s must be at most @namespace_length@ characters', p_field);
    end if;
    if p_name !~ '^@namespace_name@$' then
        raise exception using errcode = 'MP001',
            message = format('%s must match ^@namespace_name@$', p_field),
            hint = 'A kind, a colon, a name: workspace:4f2a, team:payments.';
    end if;
end
$function$;

comment on function memory_plugin._check_namespace(text, text) is
    'Raise MP001 unless p_name is a namespace name: ^@namespace_name@$, at most @namespace_length@ characters.';

create or replace function memory_plugin._check_words(p_field text, p_text text)
returns void
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    -- Each takes some 30 ns: half a second in all.
    c_most constant bigint := 15000000;
    v_work bigint;
begin
    -- The parser of Postgres looks, from each of these signs on, for the end of what might be one name of a host or
    -- file, and from the beginning of a comment for its end: in long runs as often as they are long.
    if length(p_text)::bigint * (length(p_text) - length(translate(p_text, '_@~./-<', ''))) > c_most then
        v_work := coalesce(
            (
                select sum(length(m.run[1])::bigint * regexp_count(m.run[1], '[_@~]|[.]/|/[.]'))
                from regexp_matches(p_text, '([[:alnum:]_@~./]{64,})', 'g') as m (run)
            ), 0
        ) + coalesce(
            (
                select sum(length(m.run[1])::bigint * regexp_count(m.run[1], '[-_][0-9]+-'))
                from regexp_matches(p_text, '([[:alnum:]_-]{64,})', 'g') as m (run)
            ), 0
        ) + length(p_text)::bigint * (
            select count(*) from regexp_split_to_table(p_text, '<!--') as c (comment) where strpos(c.comment, '-->') = 0
        );
        if v_work > c_most then
            raise exception using errcode = 'MP001',
                message = format('%s must not join thousands of words by _, @, ~, / or -, or open as many comments', p_field),
                hint = 'Put spaces between them, or split the text into several memories.';
        end if;
    end if;
    -- A shorter text has no more words than a tsvector holds.
    if octet_length(p_text) > 300000 then
        begin
            perform to_tsvector('@text_search_config@', p_text);
        exception
            when program_limit_exceeded then
                raise exception using errcode = 'MP001',
                    message = format('%s must hold fewer different words: at most a megabyte of them', p_field),
                    hint = 'Split the text into several memories.';
        end;
    end if;
end
$function$;

comment on function memory_plugin._check_words(text, text) is
    'Raise MP001 where a text has more words than a tsvector holds, or is one that the parser of Postgres would take '
    'apart for seconds to hours.';

create or replace function memory_plugin._check_choice(p_field text, p_value text, p_choices text[])
returns void
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    if p_value is null then
        raise exception using errcode = 'MP001', message = format('%s is required', p_field);
    end if;
    if p_value <> all (p_choices) then
        raise exception using errcode = 'MP001',
            message = format('%s must be one of: %s', p_field, array_to_string(p_choices, ', '));
    end if;
end
$function$;

comment on function memory_plugin._check_choice(text, text, text[]) is
    'Raise MP001 unless p_value is one of p_choices.';

create or replace function memory_plugin._check_time(p_field text, p_value timestamptz)
returns timestamptz
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    -- 'infinity' says in SQL what an absent expiry says on the wire.
    if p_value = 'infinity' then
        return null;
    end if;
    -- What RFC 3339 can say in UTC. Both ends are in use, as "never" and as the zero of a client's time type.
    if p_value < '0001-01-01 00:00:00+00' or p_value >= '10000-01-01 00:00:00+00' then
        raise exception using errcode = 'MP001',
            message = format('%s must lie between the years 1 and 9999', p_field);
    end if;
    return p_value;
end
$function$;

comment on function memory_plugin._check_time(text, timestamptz) is
    'The time, null for infinity; MP001 outside the years that RFC 3339 can write.';

create or replace function memory_plugin._check_object(p_field text, p_value jsonb)
returns void
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    if jsonb_typeof(p_value) <> 'object' then
        raise exception using errcode = 'MP001', message = format('%s must be a JSON object', p_field);
    end if;
    -- What is stored goes out with every search that finds it, so it must be what a client can read. jsonb writes a
    -- number out: 1e131071 is 131,072 digits, and a few thousand of them would bring down each such search.
    if jsonb_path_exists(
        p_value,
        -- The greatest and the smallest that double precision has, subnormal ones included.
        'strict $.** ? (!(@ >= 4.94e-324 && @ <= 1.7976931348623157e308) && (@ > 1.7976931348623157e308 '
        '|| @ < -1.7976931348623157e308 || (@ != 0 && @ < 4.94e-324 && @ > -4.94e-324)))'
    ) then
        raise exception using errcode = 'MP001',
            message = format('%s holds a number outside the range of double precision', p_field);
    end if;
    if jsonb_path_exists(p_value, 'strict $.**{500}') then
        raise exception using errcode = 'MP001', message = format('%s is nested more than 500 levels deep', p_field);
    end if;
    -- 1e308 is five characters on the way in and 309 on the way out: a body of 1 MiB could become an answer of 54.
    if octet_length(p_value::text) > 4194304 then
        raise exception using errcode = 'MP001',
            message = format('%s must take at most 4194304 bytes, its numbers written out', p_field);
    end if;
end
$function$;

comment on function memory_plugin._check_object(text, jsonb) is
    'Raise MP001 unless the value is null or a JSON object that a client can read: numbers within double '
    'precision, at most 500 levels, 4 MiB.';

create or replace function memory_plugin._check_embedding(p_embedding @extschema:vector@.vector)
returns @extschema:vector@.vector
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_norm double precision;
begin
    if @extschema:vector@.vector_dims(p_embedding) <> @dimensions@ then
        raise exception using errcode = 'MP002',
            message = format('embedding must have %s dimensions, not %s', @dimensions@, @extschema:vector@.vector_dims(p_embedding)),
            hint = 'A store holds vectors of one model; memory-plugin reembed changes to another.';
    end if;
    v_norm := @extschema:vector@.vector_norm(p_embedding);
    if v_norm = 0 then
        raise exception using errcode = 'MP001', message = 'embedding must not be all zeros';
    end if;
    -- Only the direction counts. Lengths far from 1 would overflow single or half precision in a distance.
    if v_norm not between 0.001 and 1000 then
        return @extschema:vector@.l2_normalize(p_embedding);
    end if;
    return p_embedding;
end
$function$;

comment on function memory_plugin._check_embedding(@extschema:vector@.vector) is
    'The embedding, brought to unit length where its own is extreme. MP002: other dimensions than the store; '
    'MP001: all zeros.';

create or replace function memory_plugin._trim(p_text text)
returns text
-- Not in the language sql, which would plan it anew at every call.
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    -- Unicode's White_Space, spelled out: what a regular expression calls space depends on the database's locale.
    return btrim(
        p_text,
        e' \t\n\x0b\f\r\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000'
    );
end
$function$;

comment on function memory_plugin._trim(text) is 'The text without white space at its ends.';

create or replace function memory_plugin._check_range(p_field text, p_value integer, p_least integer, p_most integer)
returns void
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    if p_value is null or p_value not between p_least and p_most then
        raise exception using errcode = 'MP001',
            message = format('%s must be between %s and %s', p_field, p_least, p_most);
    end if;
end
$function$;

comment on function memory_plugin._check_range(text, integer, integer, integer) is
    'Raise MP001 unless p_value is a number from p_least to p_most.';

create or replace function memory_plugin._once(p_choices text[])
returns text[]
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return case
        when cardinality(p_choices) > 3 then array(select distinct c.choice from unnest(p_choices) as c (choice))
        else p_choices
    end;
end
$function$;

comment on function memory_plugin._once(text[]) is
    'Choices of which there are but three, each once: a filter compares every row with each of them.';

create or replace function memory_plugin._check_size(p_bytes bigint)
returns void
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    -- More takes longer than a request has.
    if p_bytes > 25165824 then
        raise exception using errcode = 'MP001',
            message = format('limit must be smaller: the memories found have %s MiB together, 24 are the most', p_bytes / 1048576);
    end if;
end
$function$;

comment on function memory_plugin._check_size(bigint) is
    'Raise MP001 where the contents of an answer have more than 24 MiB together, as they were stored.';
