/*
 * path.c
 *		Paths into JSON, as text to steps.
 */
#include "postgres.h"

#include "format/path.h"
#include "lib/stringinfo.h"

/* The largest index that can be asked for. */
#define MAX_INDEX 1000000

static IngestPathStep *
add_step(IngestPath *path, IngestPathKind kind)
{
	IngestPathStep *step;

	/* One by one: paths are short, and read once. */
	path->steps = path->steps ?
		repalloc(path->steps, sizeof(IngestPathStep) * (path->nsteps + 1)) :
		palloc(sizeof(IngestPathStep));
	step = &path->steps[path->nsteps++];
	memset(step, 0, sizeof(*step));
	step->kind = kind;
	return step;
}

/* Behind the dot: a plain or a quoted key; answers what is behind it, or NULL. */
static const char *
parse_key(const char *p, IngestPath *path, const char **why)
{
	StringInfoData key;
	IngestPathStep *step;

	initStringInfo(&key);
	if (*p == '"')
	{
		for (p++; *p != '"'; p++)
		{
			if (*p == '\\' && p[1] != '\0')
				p++;
			if (*p == '\0')
			{
				*why = "A quoted key does not end.";
				return NULL;
			}
			appendStringInfoChar(&key, *p);
		}
		p++;
	}
	else
		while (*p && *p != '.' && *p != '[')
			appendStringInfoChar(&key, *p++);
	if (key.len == 0)
	{
		*why = "A key is empty.";
		return NULL;
	}
	step = add_step(path, INGEST_PATH_KEY);
	step->key = key.data;
	step->len = key.len;
	return p;
}

/* Behind the bracket. */
static const char *
parse_index(const char *p, bool many, IngestPath *path, const char **why)
{
	char	   *end;
	long		index;

	if (many && p[0] == '*' && p[1] == ']')
	{
		add_step(path, INGEST_PATH_ALL);
		path->many = true;
		return p + 2;
	}
	index = strtol(p, &end, 10);
	if (end == p || *end != ']' || index < 0 || index > MAX_INDEX)
	{
		*why = many ? "In brackets is an index, counted from 0, or * for all elements." :
			"An index is a number in brackets, counted from 0.";
		return NULL;
	}
	add_step(path, INGEST_PATH_INDEX)->index = index;
	return end + 1;
}

bool
ingest_path_parse(const char *text, bool many, IngestPath *path, const char **why)
{
	const char *p = text;

	memset(path, 0, sizeof(*path));
	if (*p++ != '$')
	{
		*why = "It must begin with $.";
		return false;
	}
	while (p && *p)
	{
		if (*p == '.')
			p = parse_key(p + 1, path, why);
		else if (*p == '[')
			p = parse_index(p + 1, many, path, why);
		else
		{
			*why = "A step begins with . or [.";
			p = NULL;
		}
	}
	return p != NULL;
}
