// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/init.h"

#include "trireme/base/log.h"
#include "trireme/launch/local_workers.h"

namespace trireme {

WorldOptions world_options(const LaunchInfo& info) {
  WorldOptions options;
  options.rank = info.rank;
  options.size = info.size;
  options.address = info.address;
  options.port = info.port;
  options.listen_fd = info.listen_fd;
  options.secret = info.secret;
  return options;
}

std::unique_ptr<Group> init() {
  const LaunchInfo info = launch_info();
  follow_launcher();
  set_log_rank(info.rank, info.size);
  return join_world(world_options(info));
}

}  // namespace trireme
