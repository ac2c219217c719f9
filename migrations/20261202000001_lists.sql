-- Lists of runs by status and by target: without these a page of what is rare reads every run of the project, newest first.

-- The status as it is shown: the expression is that of the list's question, to the letter.
CREATE INDEX runs_newest_of_project_status ON runs
    (project, (CASE WHEN status = 'Starting' AND waits_for IS NOT NULL THEN 'Queued' ELSE status END), created_at DESC, id DESC);
CREATE INDEX runs_newest_of_project_target ON runs (project, compute_target, created_at DESC, id DESC);
