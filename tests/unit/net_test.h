/* For tests of the network layer: a body on a fiber, see on_loop.h. */
#ifndef TESTS_UNIT_NET_TEST_H
#define TESTS_UNIT_NET_TEST_H

#include "sdk/net/conn.h"
#include "tests/unit/on_loop.h"

#endif
