// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Which ranks share a machine, in the sense that they can share memory and reach one another's
// /proc entries.
#pragma once

#include <string>

namespace trireme {

// The same text for two processes exactly when they run under one kernel, in one process namespace
// and one network namespace. The environment variable TRIREME_HOST_ID, when set, is the identity
// instead: tests and measurements use it to make one machine look like several.
std::string host_identity();

// The same text for two processes exactly when a process id means the same to both.
std::string process_space();

// The name of this host, for messages.
std::string host_name();

}  // namespace trireme
