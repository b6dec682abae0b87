/* Files over HTTP(S), and the bar that shows a person how far a long step is. */
#ifndef CTL_PACKAGE_FETCH_H
#define CTL_PACKAGE_FETCH_H

#include "sdk/base/arena.h"

/* A bar on stderr, when that is a terminal; nothing elsewhere. total 0 = unknown. */
struct progress {
        const char *what;
        uint64_t total, done;
        double shown_at;
        bool on, drawn;
};
void progress_begin(struct progress *p, const char *what, uint64_t total);
void progress_add(struct progress *p, uint64_t n);
void progress_end(struct progress *p); /* takes the bar away */

bool fetch_is_url(const char *s);      /* http:// or https:// */
/* The URL of `name` beside `base` ("https://h/a/index.json" + "x.tar" = "https://h/a/x.tar"); an absolute name stays as it is. */
const char *fetch_beside(struct arena *a, const char *base, const char *name);
/* GET, at most five redirects (never from https to http), at most max bytes. ca_file: trust anchors besides none others, "" = the
 * system's. 0; -ENOENT: the server has none; -errno; with a sentence in *ret_err. Park. */
int fetch_text(struct arena *a, const char *url, const char *ca_file, size_t max, struct str *ret, const char **ret_err);
/* To a descriptor, which the caller truncates on failure. */
int fetch_fd(struct arena *a, const char *url, const char *ca_file, uint64_t max, int fd, struct progress *p, const char **ret_err);

#endif
