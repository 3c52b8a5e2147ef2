-- One item of a pattern: a character, an escaped sign, a class; and how often.
create or replace function memory_plugin._redaction_items(p_pattern text)
returns table (literal text, class text, fewest integer, most integer)
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_rest text := p_pattern;
    v_item text[];
    v_count text[];
begin
    while v_rest <> '' loop
        v_item := regexp_match(
            v_rest,
            e'^(\\[\\^?(?:\\\\[]!-/:-@\\\\^_`{-~[]|\\\\[dws]|[^]\\\\[[:cntrl:]])+\\]|\\\\[dws]|\\\\[]!-/:-@\\\\^_`{-~[]|[^][\\\\(){}*+?|.^$[:cntrl:]])'
            '([*+?]|[{][0-9]{1,3}(?:,[0-9]{0,3})?[}])?'
        );
        if v_item is null then
            raise exception using errcode = 'MP001',
                message = format('pattern cannot be read from here: %s', left(v_rest, 20)),
                hint = e'Characters, signs escaped with \\, classes such as [A-Z0-9_-], \\d, \\w and \\s, each with ?, *, +, {m} or '
                '{m,n} behind it. No groups, no alternatives, no dot: give each alternative a row of its own.';
        end if;
        v_rest := substr(v_rest, length(v_item[1]) + length(coalesce(v_item[2], '')) + 1);
        v_count := regexp_match(v_item[2], e'^\\{([0-9]+)(,?)([0-9]*)\\}$');
        literal := case when v_item[1] !~ e'^(\\[|\\\\[dws])' then right(v_item[1], 1) end;
        class := v_item[1];
        if class ~ e'\\\\[dws]-[^]]|-\\\\[dws]' then
            raise exception using errcode = 'MP001', message = format('pattern contains an invalid range: %s', class);
        end if;
        fewest := case
            when v_item[2] is null or v_item[2] = '+' then 1
            when v_item[2] in ('*', '?') then 0
            else v_count[1]::integer
        end;
        most := case
            when v_item[2] is null or v_item[2] = '?' then 1
            when v_count[2] = '' then fewest
            else nullif(v_count[3], '')::integer
        end;
        if most < fewest or most = 0 or greatest(fewest, most) > 255 then
            raise exception using errcode = 'MP001',
                message = format('pattern holds the count %s: counts go up to 255, the greater one last', v_item[2]);
        end if;
        return next;
    end loop;
end
$function$;

comment on function memory_plugin._redaction_items(text) is
    'The items of a redaction pattern: its text where it is a single character, its text as a class, its least and '
    'greatest count (null: as many as there are). Errors: MP001.';

create or replace function memory_plugin._compile_redaction_pattern()
returns trigger
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_item record;
    v_at integer := 0;
    v_fixed boolean := true;
    v_run text := '';
    v_variable integer := 0;
    v_length integer := 0;
    v_count integer;
    v_item_expression text;
begin
    if new.kind !~ '^[a-z][a-z0-9_]{0,39}$' or new.kind = 'rest' then
        raise exception using errcode = 'MP001', message = 'kind must match ^[a-z][a-z0-9_]{0,39}$ and not be rest';
    end if;
    if char_length(new.pattern) not between 2 and 200 then
        raise exception using errcode = 'MP001', message = 'pattern must have 2 to 200 characters';
    end if;
    new.needle := '';
    new.before := 0;
    new.expression := '';
    select count(*) into v_count from _redaction_items(new.pattern);
    for v_item in select i.*, i.place = v_count as final from _redaction_items(new.pattern) with ordinality as i (
        literal, class, fewest, most, place
    ) loop
        v_length := v_length + v_item.fewest;
        if v_item.fewest is distinct from v_item.most then
            v_fixed := false;
            v_variable := v_variable + 1;
        end if;
        -- The longest run of characters among what has a fixed place is what is looked for first.
        if v_fixed then
            v_run := case when v_item.literal is null then '' else v_run || repeat(v_item.literal, v_item.fewest) end;
            v_at := v_at + v_item.fewest;
            if length(v_run) > length(new.needle) then
                new.needle := v_run;
                new.before := v_at - length(v_run);
            end if;
        end if;
        v_item_expression := v_item.class
            || case
                when v_item.fewest = v_item.most then case v_item.fewest when 1 then '' else '{' || v_item.fewest || '}' end
                when v_item.most is null and v_item.final then '{' || v_item.fewest || ',}'
                else '{' || v_item.fewest || ',' || coalesce(v_item.most, 255) || '}'
            end;
        -- What an item of varying length has taken it does not give back: so no text makes a match slow.
        new.expression := new.expression
            || case
                when v_item.fewest is distinct from v_item.most and not v_item.final
                    then '(?=(' || v_item_expression || e'))(?:\\' || v_variable || ')'
                else v_item_expression
            end;
    end loop;
    if v_length > 255 or v_variable > 4 then
        raise exception using errcode = 'MP001',
            message = 'pattern must have at most 4 parts of varying length, and ask for at most 255 characters';
    end if;
    if char_length(new.needle) < 2 and new.needle !~ e'^[!-/:-@\\\\^_`{-~[]$' and new.needle <> ']' then
        raise exception using errcode = 'MP001',
            message = 'pattern must hold two plain characters together, or a sign, before its first part of varying length',
            hint = 'Good: EMP-[0-9]{6}, [0-9]{3}-[0-9]{2}-[0-9]{4}. Not: [A-Z]+-[0-9]+.';
    end if;
    begin
        perform '' ~ new.pattern;
    exception
        when invalid_regular_expression then
            raise exception using errcode = 'MP001', message = 'pattern is no regular expression', detail = sqlerrm;
    end;
    if new.enabled and (
        select count(*) from redaction_patterns as p
        where p.enabled and (p.kind, p.pattern) is distinct from (new.kind, new.pattern)
    ) >= 32 then
        raise exception using errcode = 'MP001', message = 'at most 32 patterns may be enabled';
    end if;
    return new;
end
$function$;

comment on function memory_plugin._compile_redaction_pattern() is
    'Take a pattern of redaction_patterns apart into what redact() works with. Errors: MP001.';
