-- What a query asks of the words of a memory, and what those words weigh in the namespaces searched.
create type memory_plugin._lexical_plan as (
    terms tsquery[],
    grams text[],
    required tsquery,
    present text[],
    absent text[],
    weights double precision[],
    average_length double precision,
    k1 double precision,
    b double precision
);

comment on type memory_plugin._lexical_plan is
    'terms: lexemes and phrases, grams: pieces of text; any of them may match. required: what must and must not '
    'occur; '
    'present and absent: the same as patterns of ilike. weights: inverse document frequencies of terms, then grams; '
    'average_length: of a memory in the namespaces searched; k1 and b: the parameters of BM25.';

create type memory_plugin._scored as (
    namespace text,
    id uuid,
    score double precision,
    lexical double precision,
    lexical_rank bigint,
    semantic double precision,
    semantic_rank bigint,
    neighbour double precision
);

comment on type memory_plugin._scored is
    'One memory with its score and what it is made of: the score and rank in each arm, and the score of the memory '
    'before or after it.';
