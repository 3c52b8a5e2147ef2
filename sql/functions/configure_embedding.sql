create or replace function memory_plugin.configure_embedding(
    url text,
    model text,
    dimensions integer,
    api_key text default null,
    batch_size integer default 64,
    timeout_ms integer default 30000,
    query_timeout_ms integer default 700,
    max_characters integer default 16000,
    send_dimensions boolean default false,
    text_prefix text default '',
    query_prefix text default '',
    ca_certificate text default null
)
returns void
language plpgsql volatile parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set lock_timeout = '1s'
as $function$
#variable_conflict use_column
declare
    v_url text;
    v_key text := nullif(configure_embedding.api_key, '');
begin
    if to_regprocedure('memory_plugin._embed_query(text)') is null then
        raise exception using errcode = 'feature_not_supported',
            message = 'this store cannot fetch embeddings: its functions in PL/Python are not installed',
            hint = 'Install postgresql-plpython3-N on the server, then run memory-plugin install as a superuser.';
    end if;
    v_url := _embedding_url(configure_embedding.url);
    if configure_embedding.model is null or char_length(configure_embedding.model) not between 1 and 256 then
        raise exception using errcode = 'MP001', message = 'model must be 1 to 256 characters';
    end if;
    if configure_embedding.dimensions is distinct from @dimensions@ then
        raise exception using errcode = 'MP002',
            message = format('dimensions must be the store''s, %s, not %s', @dimensions@, configure_embedding.dimensions),
            hint = 'A store holds vectors of one model; memory-plugin reembed changes to another.';
    end if;
    -- No message shows a key that breaks a rule.
    if v_key !~ '^[!-~]+$' or char_length(v_key) > 4096 then
        raise exception using errcode = 'MP001',
            message = 'api_key must be at most 4096 printable ASCII characters without a space';
    end if;
    perform
        _check_range('batch_size', configure_embedding.batch_size, 1, 2048),
        _check_range('timeout_ms', configure_embedding.timeout_ms, 100, 60000),
        _check_range('query_timeout_ms', configure_embedding.query_timeout_ms, 50, 700),
        _check_range('max_characters', configure_embedding.max_characters, 100, 1000000);
    if char_length(configure_embedding.text_prefix) > 1000 or char_length(configure_embedding.query_prefix) > 1000 then
        raise exception using errcode = 'MP001', message = 'text_prefix and query_prefix must be at most 1000 characters';
    end if;
    if configure_embedding.ca_certificate not like '%-----BEGIN CERTIFICATE-----%' then
        raise exception using errcode = 'MP001', message = 'ca_certificate must be a certificate in PEM';
    end if;
    if v_key is not null and v_url ~ '^http://' and v_url !~ '^http://(localhost|127\.[0-9.]+|\[::1\])[:/]' then
        raise warning 'the key goes over the network unencrypted: url is http://';
    end if;
    insert into embedding_provider as p (
        slot, url, model, dimensions, api_key, batch_size, timeout_ms, query_timeout_ms, max_characters,
        send_dimensions, text_prefix, query_prefix, ca_certificate
    )
    values (
        'current', v_url, configure_embedding.model, configure_embedding.dimensions, v_key,
        configure_embedding.batch_size, configure_embedding.timeout_ms, configure_embedding.query_timeout_ms,
        configure_embedding.max_characters, coalesce(configure_embedding.send_dimensions, false),
        coalesce(configure_embedding.text_prefix, ''), coalesce(configure_embedding.query_prefix, ''),
        configure_embedding.ca_certificate
    )
    on conflict (slot) do update
    set
        url = excluded.url,
        model = excluded.model,
        dimensions = excluded.dimensions,
        api_key = excluded.api_key,
        batch_size = excluded.batch_size,
        timeout_ms = excluded.timeout_ms,
        query_timeout_ms = excluded.query_timeout_ms,
        max_characters = excluded.max_characters,
        send_dimensions = excluded.send_dimensions,
        text_prefix = excluded.text_prefix,
        query_prefix = excluded.query_prefix,
        ca_certificate = excluded.ca_certificate,
        revision = gen_random_uuid(),
        configured_at = now();
    -- What failed with the old one is worth another try with the new one.
    delete from embedding_attempts;
    update embedding_state set failures = 0, retry_at = null, problem = null, query_off_until = null;
end
$function$;

comment on function memory_plugin.configure_embedding(
    text, text, integer, text, integer, integer, integer, integer, boolean, text, text, text
) is
    'Set the service that embeds what is committed and searched as text alone: any with OpenAI''s /v1/embeddings. '
    'url: http(s)://host[:port] gets that path, another path stays; dimensions: the store''s; api_key: sent as '
    'a bearer '
    'token, never shown again; batch_size: texts a request, 1 to 2048; timeout_ms: of a request, 100 to 60000; '
    'query_timeout_ms: of a search''s, 50 to 700; max_characters: of a text, what is over is cut off; '
    'send_dimensions: '
    'name them in the request; text_prefix, query_prefix: what the model wants in front; ca_certificate: PEM, '
    'instead of '
    'the server''s authorities. For the owner alone. Errors: MP001, MP002; 0A000 without PL/Python.';

revoke all on function memory_plugin.configure_embedding(
    text, text, integer, text, integer, integer, integer, integer, boolean, text, text, text
) from public;
