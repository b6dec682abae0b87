/* What tells one process, one program file and one start of the machine from every other: nobody is stopped or believed on a number alone. */
#ifndef KERNEL_SUPER_PROOF_H
#define KERNEL_SUPER_PROOF_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { BOOT_ID_BYTES = 40 };
/* When the process started, in ticks since the machine did; 0 = there is no such process. */
uint64_t proof_start_ticks(pid_t pid);
/* Is it on its way out? It has closed its sockets then, or is about to, and its end is told in a moment. */
bool proof_is_exiting(pid_t pid);
/* Of the file as it stands there now: another one, or one that was written to, has another number. 0 = it cannot be looked at. */
uint64_t proof_file_id(const char *path);
void proof_boot_id(char to[BOOT_ID_BYTES]); /* "" if the machine does not say */
/* Its pidfd (>= 0) when the process of this number is the one that started then and runs as uid; -ESRCH when it is not; -errno. */
int proof_process(pid_t pid, uint64_t start_ticks, uid_t uid);
/* Who listens on a Unix socket: process id > 0; or -errno. *ret_pidfd (may be NULL): of that very process, -1 when the machine cannot
 * tell or it is gone. */
pid_t proof_listener(const char *path, int *ret_pidfd);
/* Asks the process to end (SIGTERM), kills it when it has not after a moment. Blocks up to 2 s. */
void proof_end(int pidfd);

#endif
