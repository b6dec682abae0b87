/* What running sidecars tell about their component instances, over their control sockets. */
#ifndef CTL_LIVE_H
#define CTL_LIVE_H

#include "ctl/ctl.h"

struct live {
        const char *app_id, *name, *type, *state, *backend, *last_error, *plugin, *plugin_version, *executable, *last_death,
                *stuck,           /* what in its process does not come back; "" = nothing */
                *fault;           /* "delay 100ms, on 10% of calls, for 8 s more"; "" = none */
        int64_t pid, candidate_pid, restarts, adopted, calls, errors, inflight, rss_bytes, uptime_s; /* uptime -1 = not running; adopted: from how many
                                   * daprds that crashed its process was taken over */
        bool foreign;
        struct str raw;           /* the whole row as JSON */
};
struct lives {
        struct live *v;
        size_t n;
};
/* The sidecar of an app, or NULL after saying that there is none. Parks. */
struct sidecar *live_sidecar(struct arena *a, const char *app_id);
/* That one, or with "" all sidecars. 0, or 1 after saying what is wrong. Parks. */
int live_sidecars(struct arena *a, const char *app_id, struct sidecars *ret);
/* One request to the control service. NULL and the body; or a sentence: status or the body's "error" for what is no 200. Parks. */
const char *live_try(struct arena *a, const struct sidecar *s, const char *method, const char *path, double timeout_s, struct str *ret);
const char *live_send(struct arena *a, const struct sidecar *s, const struct sidecar_request *req, struct str *ret); /* with a body */
/* live_try; 0, or 1 after saying it. */
int live_ask(struct arena *a, const struct sidecar *s, const char *method, const char *path, double timeout_s, struct str *ret);
/* Appends the rows of one sidecar. 0, or 1 after saying what is wrong. Parks. */
int live_list(struct arena *a, const struct sidecar *s, struct lives *ret);
/* One row; its extra members stand in raw. */
int live_get(struct arena *a, const struct sidecar *s, const char *component, struct live *ret);
/* A row for scripts: "appId", "name", "uptimeSeconds" and what the sidecar said. */
void live_write_json(struct json_writer *w, struct arena *a, const struct live *l);
const char *live_color(const char *state); /* escape sequence, or NULL */
const char *live_path(struct arena *a, const char *component, const char *rest); /* of the control service */

#endif
