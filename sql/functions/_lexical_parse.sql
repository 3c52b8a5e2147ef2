create or replace function memory_plugin._like_pattern(p_text text)
returns text
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return '%' || replace(replace(replace(p_text, e'\\', e'\\\\'), '%', e'\\%'), '_', e'\\_') || '%';
end
$function$;

comment on function memory_plugin._like_pattern(text) is 'A pattern that matches what contains the text.';

create or replace function memory_plugin._lexical_pattern(p_text text, p_unspaced text)
returns text
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return case when p_text ~ '^[[:alnum:]_]' and left(p_text, 1) !~ p_unspaced then e'\\y' else '' end
        || regexp_replace(p_text, e'([][(){}.*+?^$|\\\\])', e'\\\\\\1', 'g')
        || case when p_text ~ '[[:alnum:]_]$' and right(p_text, 1) !~ p_unspaced then e'\\y' else '' end;
end
$function$;

comment on function memory_plugin._lexical_pattern(text, text) is
    'A regular expression that matches what contains the text, and no part of a longer word; p_unspaced matches '
    'characters of scripts where words have no ends.';

create or replace function memory_plugin._lexical_piece(p_text text, p_unspaced text)
returns text
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_pattern constant text := _lexical_pattern(p_text, p_unspaced);
begin
    return case when @whole_words(v_pattern)@ then v_pattern else p_text end;
end
$function$;

comment on function memory_plugin._lexical_piece(text, text) is
    'What is looked for in texts: of what begins with a word an expression for whole words, else the text itself.';

create or replace function memory_plugin._lexical_phrase(p_text text, p_unspaced text)
returns tsquery
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    -- Without a word the making of one would tell the caller so.
    if p_text ~ p_unspaced or to_tsvector('@text_search_config@', p_text) = '' then
        return null;
    end if;
    return phraseto_tsquery('@text_search_config@', p_text);
end
$function$;

comment on function memory_plugin._lexical_phrase(text, text) is
    'The words of a phrase, in their order; null where it has none, or has text without spaces, which p_unspaced '
    'matches (null: no text has).';

create or replace function memory_plugin._lexical_reads()
returns integer
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return 4000;
end
$function$;

comment on function memory_plugin._lexical_reads() is 'How many characters of a query are read.';

create or replace function memory_plugin._lexical_present()
returns integer
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return 32;
end
$function$;

comment on function memory_plugin._lexical_present() is
    'How many phrases of stop words a query may demand; of more, the first are.';

create or replace function memory_plugin._lexical_parse(p_query text, p_alone boolean, p_whole boolean)
returns memory_plugin._lexical_plan
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_plan _lexical_plan;
    -- Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han, Hangul.
    v_run constant text :=
        e'[\\u0e00-\\u0eff\\u1000-\\u109f\\u1780-\\u17ff\\u3040-\\u30ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\uac00-\\ud7af\\uf900-\\ufaff]+';
    -- What a minus excludes begins with no digit and no mark, but it may be a sign of another kind.
    c_word constant text := e'[^\\s\\d!-/:-@[\\]^_`{-~\\\\][^\\s"]*';
    v_read constant text := left(p_query, _lexical_reads());
    -- A question is short; of a pasted page the beginning is asked, without a last word that is cut off.
    v_text text := translate(
        case
            when v_read = p_query or v_read ~ (v_run || '$') then v_read
            else regexp_replace(v_read, e'(\\s)\\S{0,100}$', e'\\1')
        end,
        '“”„«»', '""""""'
    );
    v_words text := v_text;
    v_around text := v_text;
    v_part text[];
    v_phrases text[];
    v_absent text[];
    v_phrase text;
    v_pattern text;
    v_tsquery tsquery;
    v_terms text[];
    -- Of so many words, numbers are asked in their other forms too: a page of numbers has enough of its own.
    c_forms constant integer := 16;
    v_spaced boolean :=
        octet_length(v_text) = char_length(v_text) or getdatabaseencoding() <> 'UTF8' or v_text !~ v_run;
begin
    -- Memories are short, and a longer one rather says more than the same again: length counts less than is usual.
    v_plan.k1 := _setting('bm25_k1', 1.2, 0.01, 100);
    v_plan.b := _setting('bm25_b', 0.3, 0, 1);

    if v_text ~ '["-]' then
        -- What is excluded goes; a phrase stays, whatever stands in it.
        v_words := regexp_replace(v_text, e'("[^"]+")|(^|\\s)-(?:"[^"]+"|' || c_word || ')', e'\\1\\2 ', 'g');
        v_around := regexp_replace(v_words, '"[^"]+"', ' ', 'g');
        -- A minus counts only before a word or a phrase: well-known, -5 and a dash between spaces exclude nothing.
        for v_part in
            select m.part from regexp_matches(
                v_text, e'(?:(?:^|\\s)(-))?(?:"([^"]+)"|(?<=\\s-|^-)(' || c_word || '))', 'g'
            ) as m (part)
        loop
            v_phrase := coalesce(v_part[2], v_part[3]);
            continue when _trim(v_phrase) = '';
            if v_part[1] is null then
                v_phrases := v_phrases || v_phrase;
                continue;
            end if;
            v_tsquery := _lexical_phrase(v_phrase, case when not v_spaced then v_run end);
            if v_tsquery is not null then
                v_plan.required := coalesce(v_plan.required && !! v_tsquery, !! v_tsquery);
            elsif v_phrase ~ v_run or v_phrase !~ '^[[:alpha:]'']+$' then
                v_absent := v_absent || _lexical_pattern(v_phrase, v_run);
            end if;
            -- Else a stop word: nothing is known of where it stands, and as letters it would be in everything.
        end loop;
        -- One expression for all: a look through each text, however many they are.
        v_plan.absent := case when v_absent is not null then array[array_to_string(v_absent, '|')] end;
    end if;

    if octet_length(v_words) > char_length(v_words) and getdatabaseencoding() = 'UTF8'
        and v_words is not nfc normalized
    then
        -- Accents that stand behind their letters are asked in one with them too, as most texts have them.
        v_words := v_words || ' ' || normalize(v_words, nfc);
        v_spaced := v_spaced and v_words !~ v_run;
    end if;
    if not v_spaced then
        -- Two neighbouring characters stand for a word.
        select array_agg(g.gram order by g.first) into v_plan.grams
        from (
            select substr(m.run[1], i.i, 2) as gram, min(array[m.place, i.i]) as first
            from regexp_matches(v_words, v_run, 'g') with ordinality as m (run, place)
            cross join lateral generate_series(1, greatest(char_length(m.run[1]) - 1, 1)) as i (i)
            group by substr(m.run[1], i.i, 2)
        ) as g;
        v_words := regexp_replace(v_words, v_run, ' ', 'g');
    end if;
    v_terms := case when not p_whole then tsvector_to_array(to_tsvector('@text_search_config@', v_words)) end;
    if v_words ~ e'\\d' and cardinality(v_terms) <= c_forms then
        -- What is JIRA-1234 to one is ticket 1234 to another, and to the parser the hyphen is a minus; what is v1.2.3 to
        -- one is version 1.2.3 to another.
        v_terms := array(
            select u.term from unnest(v_terms) as u (term)
            union
            select f.form
            from unnest(v_terms) as u (term)
            cross join lateral ltrim(u.term, '+-v') as n (number)
            cross join lateral (
                values (n.number), (case when n.number !~ e'\\..*\\.' then '-' || n.number end),
                (case when n.number ~ e'\\.' then 'v' || n.number end)
            ) as f (form)
            where u.term ~ e'^([-+]|v(?=\\d+\\.))?\\d+(\\.\\d+)*$' and f.form is not null
            order by 1
        );
    end if;
    -- The text of a tsvector quotes a lexeme as a tsquery reads it.
    select coalesce(array_agg(array_to_tsvector(array[t.term])::text::tsquery), '{}') into v_plan.terms
    from unnest(v_terms) as t (term);
    if p_alone and v_plan.terms = '{}' and v_plan.grams is null then
        -- As they stand, words without the marks around them; stop words where there is nothing else.
        select array_agg(_lexical_piece(w.piece, v_run) order by w.first) into v_plan.grams
        from (
            select
                coalesce(nullif(regexp_replace(s.piece, '^[^[:alnum:]]+|[^[:alnum:]]+$', '', 'g'), ''), s.piece) as piece,
                min(s.place) as first
            from regexp_split_to_table(lower(v_words), e'[\\s"]+') with ordinality as s (piece, place)
            where s.piece <> ''
            group by 1
        ) as w
        where not p_whole or to_tsvector('@text_search_config@', w.piece) <> '';
    end if;
    v_plan.grams := coalesce(v_plan.grams, '{}');

    foreach v_phrase in array coalesce(v_phrases, '{}') loop
        v_tsquery := _lexical_phrase(v_phrase, case when not v_spaced then v_run end);
        if v_tsquery is null or p_whole then
            if _trim(v_around) = '' then
                -- Each is a look through every text, and nobody means so many.
                v_pattern := _lexical_pattern(lower(v_phrase), v_run);
                continue when cardinality(v_plan.present) >= _lexical_present() or v_pattern = any (v_plan.present);
                v_plan.present := v_plan.present || v_pattern;
            else
                v_pattern := _lexical_piece(lower(v_phrase), v_run);
                continue when v_pattern = any (v_plan.grams);
                v_plan.grams := v_plan.grams || v_pattern;
            end if;
        elsif _trim(v_around) = '' then
            -- Nothing but phrases: they must occur. Beside other words a phrase is one more thing to be found.
            v_plan.required := coalesce(v_plan.required && v_tsquery, v_tsquery);
        elsif not v_tsquery = any (v_plan.terms) then
            v_plan.terms := v_plan.terms || v_tsquery;
        end if;
    end loop;
    return v_plan;
end
$function$;

comment on function memory_plugin._lexical_parse(text, boolean, boolean) is
    'What a query asks: its words, any of which may match; "a phrase", which counts as one more word, and must occur '
    'where nothing else is asked; -word and -"a phrase", which must not occur. Scripts written without spaces are '
    'asked by pairs of neighbouring characters. p_alone: a query of stop words asks for them as they stand; p_whole: '
    'so does every query.';

comment on type memory_plugin._lexical_plan is
    'What a search by words looks for. terms: words and phrases, each a tsquery. grams: pieces of text, in small '
    'letters, or expressions for whole words. weights: their inverse document frequencies, of terms first. required: '
    'what must and must not match, as far as words say it; present: regular expressions, whatever the case, for text '
    'that must occur; absent: one for text that must not. average_length, k1, b: of BM25.';
