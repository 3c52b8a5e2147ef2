-- How far a commit looks for the neighbours of its vector. Above 1,100 dimensions 80 of them instead of 100: a commit
-- takes a tenth less, and searches find the same (docs/search.md). Below, a commit is cheap enough, and in a namespace
-- of half a million memories a graph made with fewer loses rows. What is in the graph stays as it is.
do $migration$
begin
    if @dimensions@ > 1100 then
        alter index if exists memory_plugin.memory_vectors_embedding set (ef_construction = 80);
    end if;
end
$migration$;
