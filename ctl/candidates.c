/*
 * See candidates.h. The tables of commands and flags say what there is; apps, components, plugins and keys are looked for when they are
 * asked for. Whatever cannot be found out is silently no candidate.
 */
#include "ctl/candidates.h"

#include <stdio.h>
#include <stdlib.h>

#include "ctl/commands.h"
#include "ctl/live.h"
#include "ctl/package/package.h"
#include "ctl/plugins.h"

enum { POSITIONS_MAX = 16 };

struct line {
        struct arena a;
        const char *cur;                /* the word, or its part behind "--flag=" */
        const char *head;               /* "--flag=" or "" */
        const char *pos[POSITIONS_MAX]; /* words that are no flags */
        size_t n_pos, n_offered;
        const char *app_id;             /* of --app-id on the line; "" = none */
        const struct flag_row *value_of; /* the word is this flag's value; NULL = it is not */
};

static void offer(struct line *l, const char *word, const char *text)
{
        if (strncmp(word, l->cur, strlen(l->cur)) != 0)
                return;
        printf("%s%s\t%s\n", l->head, word, text);
        l->n_offered++;
}

/* ---- the line ---- */

static bool begins(const char *name, const struct line *l, size_t *ret_words)
{
        size_t n = 0;
        for (struct str rest = str_of(name), w; rest.p && (w = str_cut(&rest, ' '), 1); n++)
                if (n == l->n_pos || !str_eqz(w, l->pos[n]))
                        return false;
        *ret_words = n;
        return true;
}

/* The command that the words name, the longest one; NULL = none yet. */
static const struct command *command_of(const struct line *l, size_t *ret_words)
{
        const struct command *best = NULL;
        size_t n;
        *ret_words = 0;
        for (size_t i = 0; i < n_commands; i++)
                if (begins(commands[i].name, l, &n) && n > *ret_words) {
                        best = &commands[i];
                        *ret_words = n;
                }
        return best;
}

static bool is_shown(const struct flag_row *row)
{
        return !(row->attr & (FLAG_HIDDEN | FLAG_DEPRECATED)) && row->kind != FLAG_GROUP;
}

/* The row of "--name" or "-n"; before there is a command any with that name will do. */
static const struct flag_row *row_of(const struct command *c, struct str word)
{
        struct str name = str_skip(word, str_has_prefix(word, STR("--")) ? 2 : 1);
        for (size_t i = 0; i < n_commands; i++) {
                const struct flag_program *p = commands[i].flags;
                for (size_t k = 0; (!c || c == &commands[i]) && k < p->n_rows; k++)
                        if (str_eqz(name, p->rows[k].name) || (name.n == 1 && name.p[0] == p->rows[k].short_name))
                                return &p->rows[k];
        }
        return NULL;
}

static bool takes_value(const struct flag_row *row)
{
        return row && row->kind != FLAG_BOOL && row->kind != FLAG_TRISTATE;
}

static void take_flag(struct line *l, struct str word, const char *next, bool *skip)
{
        size_t n;
        ptrdiff_t eq = str_chr(word, '=');
        const struct flag_row *row = row_of(command_of(l, &n), eq < 0 ? word : str_n(word.p, (size_t)eq));
        *skip = eq < 0 && takes_value(row);
        const char *value = eq >= 0 ? word.p + eq + 1 : *skip ? next : NULL;
        if (row && value && strcmp(row->name, "app-id") == 0)
                l->app_id = value;
}

/* False behind "--": that is somebody else's command line. */
static bool read_line(struct line *l, int n, char **words)
{
        bool skip = false;
        size_t used;
        for (int i = 0; i + 1 < n; i++) {
                struct str w = str_of(words[i]);
                if (strcmp(words[i], "--") == 0)
                        return false;
                if (skip || str_eqz(w, "=")) { /* bash gives "--flag", "=", "value" */
                        skip = str_eqz(w, "=");
                        continue;
                }
                if (w.n > 1 && w.p[0] == '-') {
                        bool is_last = i + 2 == n;
                        take_flag(l, w, words[i + 1], &skip);
                        if (skip && (is_last || (i + 3 == n && strcmp(words[i + 1], "=") == 0)))
                                l->value_of = row_of(command_of(l, &used), w);
                } else if (l->n_pos < POSITIONS_MAX) {
                        l->pos[l->n_pos++] = words[i];
                }
        }
        l->cur = n ? words[n - 1] : "";
        ptrdiff_t eq = str_chr(str_of(l->cur), '=');
        if (l->cur[0] == '-' && eq >= 0) {
                l->value_of = row_of(command_of(l, &used), str_n(l->cur, (size_t)eq));
                l->head = arena_strdup(&l->a, str_n(l->cur, (size_t)eq + 1));
                l->cur += eq + 1;
        } else if (l->value_of && strcmp(l->cur, "=") == 0) {
                l->cur = "";
        }
        return true;
}

/* ---- what there is ---- */

static void offer_apps(struct line *l)
{
        struct sidecars all;
        if (sidecars_find(&l->a, false, &all) == 0)
                for (size_t i = 0; i < all.n; i++)
                        offer(l, all.v[i].app_id, "a running app");
}

static void offer_components(struct line *l)
{
        struct sidecars all;
        struct lives rows = {0};
        struct sidecar *s = *l->app_id && sidecars_find(&l->a, false, &all) == 0 ? sidecars_get(&all, l->app_id) : NULL;
        if (s && live_list(&l->a, s, &rows) == 0)
                for (size_t i = 0; i < rows.n; i++)
                        offer(l, rows.v[i].name, rows.v[i].type);
}

static void offer_plugins(struct line *l)
{
        struct plugin_manifests all;
        if (plugins_find(&l->a, NULL, NULL, &all))
                return;
        for (size_t i = 0; i < all.n; i++)
                if (i == 0 || strcmp(all.v[i].name, all.v[i - 1].name) != 0)
                        offer(l, all.v[i].name, all.v[i].title);
}

static void offer_either(struct line *l) /* what runs in the app, or what is installed */
{
        *l->app_id ? offer_components(l) : offer_plugins(l);
}

static void offer_keys(struct line *l)
{
        struct trust t;
        trust_load(&l->a, &t);
        for (size_t i = 0; i < t.n; i++)
                offer(l, t.v[i].name, minisign_id_text(&l->a, t.v[i].key.id));
}

static void offer_shells(struct line *l)
{
        offer(l, "bash", "");
        offer(l, "zsh", "");
        offer(l, "fish", "");
}

static void offer_kinds(struct line *l)
{
        offer(l, "state", "a state store");
        offer(l, "secretstores", "a secret store");
}

static void offer_files(struct line *l)
{
        puts(":files");
}

static void offer_nothing(struct line *l)
{
}

/* First argument of a command; those that are not here take files. */
static const struct { const char *command; void (*fn)(struct line *l); } arguments[] = {
        {"completion", offer_shells}, {"plugin new", offer_kinds}, {"plugin trust remove", offer_keys},
        {"plugin info", offer_either}, {"plugin security", offer_either}, {"plugin remove", offer_plugins}, {"plugin verify", offer_plugins},
        {"plugin lock", offer_plugins}, {"plugin logs", offer_components}, {"plugin restart", offer_components},
        {"plugin upgrade", offer_components}, {"plugin rollback", offer_components}, {"plugin enable", offer_components},
        {"plugin disable", offer_components}, {"plugin history", offer_components}, {"plugin fault", offer_components},
        {"plugin tap", offer_components}, {"list", offer_nothing}, {"version", offer_nothing}, {"doctor", offer_nothing},
        {"plugin list", offer_nothing}, {"plugin trust list", offer_nothing}, {"stop", offer_nothing}, {"plugin top", offer_nothing},
};

static void offer_values(struct line *l)
{
        const char *arg = flag_placeholder(l->value_of), *name = l->value_of->name;
        struct str rest = str_of(arg);
        if (strcmp(name, "app-id") == 0)
                offer_apps(l);
        else if (strcmp(name, "component") == 0 || strcmp(name, "against") == 0)
                offer_components(l);
        else if (strcmp(name, "output") == 0)
                offer(l, "json", "for scripts"), offer(l, "table", "for people");
        else if (arg && strchr(arg, '|') && strcmp(arg, "URL|DIR") != 0)
                for (struct str one; rest.p && (one = str_cut(&rest, '|'), 1);)
                        offer(l, arena_strdup(&l->a, one), "");
        else
                puts(":files");
}

static void offer_flags(struct line *l, const struct command *c)
{
        for (size_t k = 0; c && k < c->flags->n_rows; k++)
                if (is_shown(&c->flags->rows[k]))
                        offer(l, arena_printf(&l->a, "--%s", c->flags->rows[k].name), c->flags->rows[k].help);
        offer(l, "--help", "");
        if (!c && l->n_pos == 0)
                offer(l, "--version", "");
}

/* The next words of commands that begin with what stands there. */
static void offer_words(struct line *l)
{
        const char *last = "";
        for (size_t i = 0; i < n_commands; i++) {
                struct str rest = str_of(commands[i].name), w = STR_NULL;
                size_t k = 0;
                while (k < l->n_pos && rest.p && (w = str_cut(&rest, ' '), str_eqz(w, l->pos[k])))
                        k++;
                if (k < l->n_pos || !rest.p)
                        continue;
                w = str_cut(&rest, ' ');
                if (str_eqz(w, last))
                        continue;
                last = arena_strdup(&l->a, w);
                offer(l, last, rest.p ? arena_printf(&l->a, "%s ...", last) : commands[i].flags->summary);
        }
}

static void offer_argument(struct line *l, const struct command *c)
{
        size_t i = 0, all = sizeof arguments / sizeof *arguments;
        while (i < all && strcmp(arguments[i].command, c->name) != 0)
                i++;
        (i < all ? arguments[i].fn : offer_files)(l);
}

void candidates_print(int n, char **words)
{
        struct line l = {.cur = "", .head = "", .app_id = ""};
        size_t used;
        arena_init(&l.a, 0);
        bool ours = read_line(&l, n, words);
        const struct command *c = ours ? command_of(&l, &used) : NULL;
        if (!ours)
                puts(":command");
        else if (l.value_of)
                offer_values(&l);
        else if (l.cur[0] == '-')
                offer_flags(&l, c);
        else if (!c || used == l.n_pos)
                offer_words(&l);
        if (c && !l.value_of && l.cur[0] != '-' && l.n_offered == 0)
                offer_argument(&l, c);
        arena_fini(&l.a);
}
