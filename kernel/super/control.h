/*
 * What daprctl asks a running daprd about its plugins: a small HTTP/1.1 service on a Unix socket of the user.
 *
 * Where: <dir>/<app id>.<pid>.sock, mode 0600, <dir> being one of runtime_dir_candidates(): $XDG_RUNTIME_DIR/dapr-<uid>,
 * $TMPDIR/dapr-<uid>, /tmp/dapr-<uid>. In the app id every character but [A-Za-z0-9._-] is '_', and only the first 40 count.
 * daprctl looks into all of them (daprd may have been started without the variables) and tries each match; one that refuses the
 * connection belongs to a dead daprd and may be removed.
 *
 *   POST /v1/upgrade[?binary=PATH]      202 {"upgrades"}: the program at PATH (or this one again) takes this one's place; when it has,
 *                                       the list's "upgrades" is one more; 500 {"error"}
 *   GET  /v1/plugins                    {"appId","pid","version","upgrades","started","cgroups" (below which plugins have their own; ""),
 *                                       "cgroupsMissing" (why not, or which limits cannot be had),"cgroupLimits":["memory","processes","CPU"]
 *                                       (that hold by them),"wallsLacking":[text...] (that the machine's kernel does not have),
 *                                       "plugins":[row...]}
 *   GET  /v1/plugins/{component}        one row, with "metadata" (field names and values, secrets as "***") and "log"
 *   GET  /v1/plugins/{component}/logs   {"lines":[{"time" (RFC 3339),"level","msg"}...]}, oldest first, at most LOG_RING_LINES
 *   GET  /v1/plugins/{component}/history {"events":[{"time","event","detail"}...]}, oldest first, also of one that is gone
 *   POST /v1/plugins/{component}/restart|enable|disable  204, or 500 {"error"}
 *   POST /v1/plugins/{component}/upgrade?path=DIR|version=V[&shadow=30s][&debug=1], .../rollback
 *                                       {"plugin","version","shadowReads","shadowDifferences"}, or 500 {"error"}: what ran before still does
 *                                       debug: the new process starts stopped, and may take a day until it is ready
 *   POST /v1/plugins/{component}/fault?[delay=100ms][&error=UNAVAILABLE][&kill=true][&rate=0.1][&for=10s], .../unfault   204; fault.h.
 *                                       kill alone: once, now
 *   POST /v1/plugins/{component}/tap?for=30s, .../untap    204; GET .../tap: what was recorded since the last time; tap.h
 *   POST /v1/plugins/{component}/call?method=/package.Service/Name   the body is the request's bytes (at most 2 MiB):
 *                                       {"code","message","response" (base64)}
 *   GET  /v1/subscriptions              {"appId","subscriptions":[...]}, see kernel/blocks/pubsub/control.c
 *   POST /v1/subscriptions/{pubsub}/{topic}/pause|resume   {"appId","subscriptions":[those]}; {pubsub} and {topic} may be "*"
 *   GET  /v1/metrics                    all metrics, in the Prometheus text format
 *   GET  /v1/requests                   the slowest requests of the last minutes, as kernel/observe/slow.h has them
 * row: {"component","type","version","disabled","state","plugin","pluginVersion","executable","socket","pid","foreign","backend" ("reachable",
 *       "unreachable", "unknown"),"lastError","lastDeath","restarts","deaths","adopted" (how often
 *       its process was taken over from a daprd that crashed),"calls","errors","inflight","rssBytes",
 *       "cpuSeconds","sinceSeconds","features":[...]}, with "fault":{"what","leftSeconds","hits"} while there is one, and "candidatePid" while another
 *       process comes up to take its place; a component that could not start has state FAILED and lastError only.
 * Errors: {"error": text} with 404 or 400.
 */
#ifndef KERNEL_SUPER_CONTROL_H
#define KERNEL_SUPER_CONTROL_H

#include "sdk/net/http.h"

struct super;

enum { CONTROL_ROUTES_MAX = 8 };
/* Answers a request whose path has the prefix; rest is what stands behind it. On a fiber of its own. */
typedef void (*control_fn)(struct http_req *r, struct str rest, void *arg);
/* What other parts tell and take: prefix ("/v1/subscriptions") is static text; fn NULL ends it. */
void control_serve(struct super *s, const char *prefix, control_fn fn, void *arg);
void control_reply(struct http_req *r, int status, const struct buf *json);
void control_refuse(struct http_req *r, int status, const char *text); /* {"error": text} */

/* Opens the socket at the first call; failures are logged only. */
void control_start(struct super *s);
void control_stop(struct super *s); /* parks */
struct ledger;
void control_give(struct super *s, struct ledger *l); /* instead: its socket goes into the ledger. Parks */

#endif
