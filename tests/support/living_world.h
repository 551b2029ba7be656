// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A world of threads that does one body after another: for tests with thousands of small bodies.
//
//   LivingWorld world(one_host("shm", 3), make_parts);
//   EXPECT_EQ(world.run([](LivingWorld::Rank& rank) { return std::string(); }), "");
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/placements.h"

namespace trireme::testing {

class LivingWorld {
 public:
  // What one rank has.
  struct Rank {
    std::unique_ptr<Group> world;
    std::vector<std::unique_ptr<Group>> parts;
  };
  // Says what is wrong; empty when nothing is.
  using Body = std::function<std::string(Rank&)>;

  // make_parts is the first body of every new world.
  LivingWorld(Placement placement, Body make_parts)
      : placement_(std::move(placement)), make_parts_(std::move(make_parts)) {}
  ~LivingWorld() { stop(); }
  LivingWorld(const LivingWorld&) = delete;
  LivingWorld& operator=(const LivingWorld&) = delete;

  // Runs the body on all ranks. After an exception the next one gets a new world.
  std::string run(const Body& body) {
    if (threads_.empty()) {
      start();
      std::string wrong = pass(make_parts_);
      if (!wrong.empty()) return wrong;
    }
    std::string wrong = pass(body);
    if (failed_) stop();
    return wrong;
  }

 private:
  std::string pass(const Body& body) {
    std::unique_lock lock(mutex_);
    body_ = &body;
    wrong_.clear();
    running_ = placement_.size();
    ++round_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return running_ == 0; });
    return wrong_;
  }

  void start() {
    const Listener listener = listen_on_free_port();
    std::vector<WorldOptions> options =
        world_options(placement_.size(), listener, placement_.engine);
    failed_ = false;
    round_ = 0;
    for (WorldOptions& own : options) {
      placement_.adapt(own);
      threads_.emplace_back([this, own] { work(own); });
    }
  }

  void stop() {
    if (threads_.empty()) return;
    const Body close = [](Rank& rank) {
      for (const auto& part : rank.parts) {
        if (part) part->close();
      }
      if (rank.world) rank.world->close();
      return std::string();
    };
    if (!failed_) pass(close);
    {
      const std::lock_guard lock(mutex_);
      body_ = nullptr;
      ++round_;
      changed_.notify_all();
    }
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  void work(const WorldOptions& options) {
    Rank rank;
    for (int round = 1;; ++round) {
      const Body* body = next_body(round);
      if (body == nullptr) return;
      std::string wrong;
      bool failed = false;
      try {
        if (round == 1) rank.world = join_world(options);
        wrong = (*body)(rank);
      } catch (const std::exception& error) {
        wrong = "rank " + std::to_string(options.rank) + " threw: " + error.what() + "\n";
        failed = true;
      }
      const std::lock_guard lock(mutex_);
      wrong_ += wrong;
      failed_ = failed_ || failed;
      if (--running_ == 0) changed_.notify_all();
    }
  }

  const Body* next_body(int round) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return round_ >= round; });
    return body_;
  }

  const Placement placement_;
  const Body make_parts_;
  std::vector<std::thread> threads_;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_, but for failed_ between two rounds.
  const Body* body_ = nullptr;
  std::string wrong_;
  int round_ = 0;
  int running_ = 0;
  bool failed_ = false;
};

}  // namespace trireme::testing
