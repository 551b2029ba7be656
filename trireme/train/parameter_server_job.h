// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a process of a job with parameter servers (launch/environment.h) tells ps/.
#pragma once

#include "trireme/launch/environment.h"
#include "trireme/ps/worker.h"

namespace trireme {

// Where and as whom a worker joins; everything else at its default. Throws ConfigError when the
// process is of no job with parameter servers: says how to start one.
ps::WorkerOptions worker_options(const LaunchInfo& info);

}  // namespace trireme
