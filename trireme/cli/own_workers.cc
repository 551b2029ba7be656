// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/cli/own_workers.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "trireme/launch/environment.h"
#include "trireme/launch/local_workers.h"
#include "trireme/ops/threads.h"
#include "trireme/topology/host.h"

namespace trireme::cli {

std::optional<int> run_own_workers(int workers, std::vector<std::string> command_line) {
  if (launch_info().launcher != Launcher::kNone || workers <= 1) {
    follow_launcher();
    return std::nullopt;
  }
  command_line.front() = std::filesystem::read_symlink("/proc/self/exe").string();
  return run_local_workers({.workers = workers, .command = std::move(command_line)});
}

void use_rank_threads(int threads) {
  const LaunchInfo info = launch_info();
  set_compute_threads(
      {.threads = threads > 0 ? threads : std::max(1, usable_cores() / info.local_size),
       .local_rank = info.local_rank,
       .local_size = info.local_size});
}

}  // namespace trireme::cli
