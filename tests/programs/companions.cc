// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A program that starts its own workers, for tests/launch/companion_workers_test.cc:
//
//   companions sum | fail | lost | vanish

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/launch/companion_workers.h"
#include "trireme/launch/init.h"
#include "trireme/launch/local_workers.h"

namespace trireme {
namespace {

constexpr int kWorkers = 3;

int run(const std::string& mode) {
  std::unique_ptr<CompanionWorkers> companions;
  LaunchInfo info = launch_info();
  if (info.launcher == Launcher::kNone) {
    companions = std::make_unique<CompanionWorkers>(kWorkers);
    info = companions->info();
  }
  follow_launcher();
  const std::unique_ptr<Group> world = join_world(world_options(info));
  if (mode == "lost" && info.rank == 2) raise(SIGKILL);
  if (mode == "vanish") {
    world->barrier();
    if (info.rank == 0) raise(SIGKILL);
    for (;;) pause();
  }
  std::vector<std::int64_t> number{info.rank + 10};
  world->all_reduce(buffer_of(std::span(number)));
  if (info.rank == 0) std::printf("sum %ld\n", static_cast<long>(number[0]));
  world->close();
  if (companions) companions->wait();
  return mode == "fail" && info.rank == 1 ? 3 : 0;
}

}  // namespace
}  // namespace trireme

int main(int, char** argv) {
  try {
    return trireme::run(argv[1]);
  } catch (const trireme::PeerLostError& error) {
    std::printf("lost rank %d\n", error.rank());
    return 6;
  } catch (const trireme::Error& error) {
    std::printf("%s\n", error.what());
    return 5;
  }
}
