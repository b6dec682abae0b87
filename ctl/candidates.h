/* What may stand at a place of a command line: the one answer for every shell. */
#ifndef CTL_CANDIDATES_H
#define CTL_CANDIDATES_H

/* words: those behind the program's name, the last is the one to be completed and may be "". Prints "WORD<tab>DESCRIPTION" a line;
 * or ":files", or ":command" behind "--", where the shell knows better. Parks. */
void candidates_print(int n, char **words);

#endif
