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
set row_security = on
set lock_timeout = '1s'
as $function$
#variable_conflict use_column
declare
    v_wish embedding_provider;
    v_former text := (select p.model from embedding_provider as p where p.slot = 'current');
begin
    v_wish := jsonb_populate_record(
        null::embedding_provider,
        _embedding_wish(
            'current', configure_embedding.url, configure_embedding.model, configure_embedding.dimensions,
            configure_embedding.api_key, configure_embedding.batch_size, configure_embedding.timeout_ms,
            configure_embedding.query_timeout_ms, configure_embedding.max_characters,
            configure_embedding.send_dimensions, configure_embedding.text_prefix, configure_embedding.query_prefix,
            configure_embedding.ca_certificate
        )
    );
    if v_former <> v_wish.model and exists (select from memory_vectors) then
        raise warning 'memories that are embedded keep the vectors of %, and no other model''s compare with those', v_former
            using hint = 'memory-plugin reembed gives every memory a vector of the new model.';
    end if;
    insert into embedding_provider as p select (v_wish).*
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
        revision = excluded.revision,
        configured_at = excluded.configured_at;
    -- What failed with the old one is worth another try with the new one.
    delete from embedding_attempts;
    update embedding_state set failures = 0, retry_at = null, problem = null, query_off_until = null;
end
$function$;

comment on function memory_plugin.configure_embedding(
    text, text, integer, text, integer, integer, integer, integer, boolean, text, text, text
) is
    'Set the service that embeds memories and queries sent as text alone: any that speaks OpenAI''s /v1/embeddings. '
    'url: http(s)://host[:port], with that path added unless it has another; dimensions: the store''s; api_key: '
    'sent as a bearer token and never shown again; ca_certificate: PEM, instead of the server''s authorities. If '
    'left out, both are kept for the same server; an empty text drops them. batch_size: texts per request, 1 to '
    '2048; timeout_ms: time limit of a request, 100 to 60000; query_timeout_ms: the same for a search''s, 50 to '
    '700; max_characters: longest text to send, the rest is cut off; send_dimensions: name them in each request; '
    'text_prefix, query_prefix: what the model expects before a memory or a query. Warns if stored memories keep '
    'the vectors of another model. For the owner alone. Errors: MP001, MP002; 0A000 without PL/Python.';

revoke all on function memory_plugin.configure_embedding(
    text, text, integer, text, integer, integer, integer, integer, boolean, text, text, text
) from public;
