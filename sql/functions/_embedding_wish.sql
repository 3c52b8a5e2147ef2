create or replace function memory_plugin._embedding_wish(
    p_slot text,
    p_url text,
    p_model text,
    p_dimensions integer,
    p_api_key text,
    p_batch_size integer default null,
    p_timeout_ms integer default null,
    p_query_timeout_ms integer default null,
    p_max_characters integer default null,
    p_send_dimensions boolean default null,
    p_text_prefix text default null,
    p_query_prefix text default null,
    p_ca_certificate text default null
)
returns jsonb
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_wish embedding_provider;
    v_former embedding_provider;
    v_same_host boolean;
begin
    if to_regprocedure('memory_plugin._embed_query(text)') is null then
        raise exception using errcode = 'feature_not_supported',
            message = 'this store cannot fetch embeddings: its functions in PL/Python are not installed',
            hint = 'Install postgresql-plpython3-N on the server, then run memory-plugin install as a superuser.';
    end if;
    select * into v_former from embedding_provider as p where p.slot = 'current';
    if p_slot = 'next' and p_url is null and v_former.url is null then
        raise exception using errcode = 'MP001', message = 'url is required, as this store has no embedding provider yet';
    end if;
    v_wish.slot := p_slot;
    v_wish.url := _embedding_url(case when p_slot = 'next' then coalesce(p_url, v_former.url) else p_url end);
    if p_model is null or char_length(p_model) not between 1 and 256 then
        raise exception using errcode = 'MP001', message = 'model must be 1 to 256 characters';
    end if;
    v_wish.model := p_model;
    if p_slot = 'current' and p_dimensions is distinct from @dimensions@ then
        raise exception using errcode = 'MP002',
            message = format('dimensions must be the store''s, %s, not %s', @dimensions@, p_dimensions),
            hint = 'A store holds vectors of one model; memory-plugin reembed changes to another.';
    end if;
    perform _check_range('dimensions', p_dimensions, 1, 4000);
    v_wish.dimensions := p_dimensions;
    perform _check_embedding_secrets(p_api_key, p_ca_certificate);
    -- A key goes to the server that it was given for, and to no other.
    v_same_host := _same_server(v_wish.url, v_former.url);
    v_wish.api_key := nullif(coalesce(p_api_key, case when v_same_host then v_former.api_key end), '');
    v_wish.ca_certificate := nullif(coalesce(p_ca_certificate, case when v_same_host then v_former.ca_certificate end), '');
    if p_slot = 'current' then
        -- The defaults, as configure_embedding() declares them; a change of the model goes on with the present ones.
        v_former.batch_size := null;
        v_former.timeout_ms := null;
        v_former.query_timeout_ms := null;
        v_former.max_characters := null;
    end if;
    v_wish.batch_size := coalesce(p_batch_size, v_former.batch_size, 64);
    v_wish.timeout_ms := coalesce(p_timeout_ms, v_former.timeout_ms, 30000);
    v_wish.query_timeout_ms := coalesce(p_query_timeout_ms, v_former.query_timeout_ms, 700);
    v_wish.max_characters := coalesce(p_max_characters, v_former.max_characters, 16000);
    perform
        _check_range('batch_size', v_wish.batch_size, 1, 2048),
        _check_range('timeout_ms', v_wish.timeout_ms, 100, 60000),
        _check_range('query_timeout_ms', v_wish.query_timeout_ms, 50, 700),
        _check_range('max_characters', v_wish.max_characters, 100, 1000000);
    v_wish.send_dimensions := coalesce(p_send_dimensions, false);
    v_wish.text_prefix := coalesce(p_text_prefix, '');
    v_wish.query_prefix := coalesce(p_query_prefix, '');
    if char_length(v_wish.text_prefix) > 1000 or char_length(v_wish.query_prefix) > 1000 then
        raise exception using errcode = 'MP001', message = 'text_prefix and query_prefix must be at most 1000 characters';
    end if;
    if v_wish.api_key is not null and v_wish.url ~ '^http://'
        and v_wish.url !~ '^http://(localhost|127[.][0-9.]+|[[]::1[]])[:/]'
    then
        raise warning 'the key goes over the network unencrypted: url is http://';
    end if;
    v_wish.revision := gen_random_uuid();
    v_wish.configured_at := now();
    return to_jsonb(v_wish);
end
$function$;

comment on function memory_plugin._embedding_wish(
    text, text, text, integer, text, integer, integer, integer, integer, boolean, text, text, text
) is
    'The row of embedding_provider that a wish for a provider comes to, its key included: what is not given is the '
    'default, or for the next one the present one''s; key and certificate are kept for the same server only, and '
    'dropped for an empty text. Errors: MP001, MP002; 0A000 without PL/Python.';
