// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// One loop over several threads. Internal to trireme/data.
#pragma once

#include <atomic>
#include <cstddef>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

namespace trireme::detail {

// Calls body(index, worker) once for each index below count, from num_threads threads, each with
// its own worker number below num_threads. Blocks until all are done. Of several exceptions the one
// of the smallest index is thrown; indices that had not begun are then left out.
template <class Body>
void parallel_for(std::size_t count, int num_threads, const Body& body) {
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::size_t failed_index = std::numeric_limits<std::size_t>::max();
  std::exception_ptr failure;
  const auto work = [&](int worker) {
    for (std::size_t index; (index = next.fetch_add(1)) < count;) {
      try {
        body(index, worker);
      } catch (...) {
        next.store(count);
        const std::lock_guard lock(mutex);
        if (index < failed_index) {
          failed_index = index;
          failure = std::current_exception();
        }
        return;
      }
    }
  };
  {
    std::vector<std::jthread> helpers;
    for (int worker = 1; worker < num_threads && static_cast<std::size_t>(worker) < count;
         ++worker) {
      helpers.emplace_back(work, worker);
    }
    work(0);
  }
  if (failure != nullptr) {
    std::rethrow_exception(failure);
  }
}

}  // namespace trireme::detail
