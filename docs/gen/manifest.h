/* Pages about plugin.yaml, on stdout. 0. */
#ifndef DOCS_GEN_MANIFEST_H
#define DOCS_GEN_MANIFEST_H

int manifest_page(void);
int manifest_man(void);

#endif
