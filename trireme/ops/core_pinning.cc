// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/core_pinning.h"

#include <fmt/format.h>
#include <omp.h>
#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "trireme/base/process_cores.h"

namespace trireme {
namespace {

// Thread i of the team runs on masks[i], the caller on the first; the first error, or 0.
int set_team_affinity(const std::vector<CoreMask>& masks) {
  std::atomic<int> error{0};
#pragma omp parallel num_threads(static_cast <int>(masks.size()))
  {
    const CoreMask& mask = masks[static_cast<std::size_t>(omp_get_thread_num())];
    if (sched_setaffinity(0, mask.bytes(), mask.data()) != 0) error = errno;
  }
  return error;
}

// pthread_create() without attributes, which is what std::thread and communication libraries call,
// copies the default ones; without this a thread would inherit the core of the one that starts it.
int let_new_threads_run_on(const CoreMask& mask) {
  pthread_attr_t attributes;
  int error = pthread_getattr_default_np(&attributes);
  if (error != 0) return error;
  error = pthread_attr_setaffinity_np(&attributes, mask.bytes(), mask.data());
  if (error == 0) error = pthread_setattr_default_np(&attributes);
  pthread_attr_destroy(&attributes);
  return error;
}

// The i-th of n equal parts of [begin, end) begins here.
std::size_t part_begin(std::size_t begin, std::size_t end, std::size_t i, std::size_t n) {
  return begin + (end - begin) * i / n;
}

}  // namespace

std::vector<std::vector<int>> share_cores(const std::vector<int>& cores, const CoreShares& shares) {
  const auto rank = static_cast<std::size_t>(shares.local_rank);
  const auto ranks = static_cast<std::size_t>(shares.local_size);
  const auto threads = static_cast<std::size_t>(shares.threads);
  if (cores.size() / ranks < threads) return {};  // decided alike by all ranks
  const std::size_t begin = part_begin(0, cores.size(), rank, ranks);
  const std::size_t end = part_begin(0, cores.size(), rank + 1, ranks);
  std::vector<std::vector<int>> result;
  for (std::size_t i = 0; i < threads; ++i) {
    result.emplace_back(
        cores.begin() + static_cast<std::ptrdiff_t>(part_begin(begin, end, i, threads)),
        cores.begin() + static_cast<std::ptrdiff_t>(part_begin(begin, end, i + 1, threads)));
  }
  return result;
}

std::string pin_team(const CoreShares& shares) {
  const std::vector<std::vector<int>> cores = share_cores(process_cores(), shares);
  if (cores.empty()) {
    unpin_team(shares.threads);
    return fmt::format("{} worker{} of {} thread{} share {} core{}", shares.local_size,
                       shares.local_size == 1 ? "" : "s", shares.threads,
                       shares.threads == 1 ? "" : "s", process_cores().size(),
                       process_cores().size() == 1 ? "" : "s");
  }
  int error = let_new_threads_run_on(CoreMask(process_cores()));
  if (error == 0) error = set_team_affinity({cores.begin(), cores.end()});
  if (error == 0) return "";
  unpin_team(shares.threads);
  return fmt::format("the system refuses: {}", std::strerror(error));
}

void unpin_team(int threads) {
  set_team_affinity(
      std::vector<CoreMask>(static_cast<std::size_t>(threads), CoreMask(process_cores())));
}

}  // namespace trireme
