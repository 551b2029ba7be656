// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The first line of a program that trains on many ranks.
//
//   const std::unique_ptr<trireme::Group> world = trireme::init();
#pragma once

#include <memory>

#include "trireme/comm/world.h"
#include "trireme/launch/environment.h"

namespace trireme {

// Where and as whom a rank joins, as its launcher said; everything else at its default.
WorldOptions world_options(const LaunchInfo& info);

// Joins the world that the environment describes: a group of one when nothing launched this
// process. Sets the rank of the log. Blocking, collective over the job. Throws as launch_info() and
// join_world() do.
std::unique_ptr<Group> init();

}  // namespace trireme
