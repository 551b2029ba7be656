// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Servers and clients of comm/rpc for tests.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/ranks.h"
#include "trireme/comm/rpc/client.h"
#include "trireme/comm/rpc/server.h"
#include "trireme/comm/shared_buffer.h"

namespace trireme::testing {

inline const std::string kRpcSecret = "a secret of this test";

// Values that one thread gives others.
template <class T>
class Mailbox {
 public:
  void put(T value) {
    const std::lock_guard lock(mutex_);
    values_.push_back(std::move(value));
    changed_.notify_all();
  }
  // Blocks; throws when nothing comes before the deadline of tests.
  T take() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kTestDeadline, [&] { return !values_.empty(); })) {
      throw std::runtime_error("nothing came");
    }
    T value = std::move(values_.front());
    values_.pop_front();
    return value;
  }
  bool empty() {
    const std::lock_guard lock(mutex_);
    return values_.empty();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<T> values_;
};

// Distinct for each seed and index.
inline std::vector<std::byte> rpc_bytes(std::size_t count, std::uint32_t seed) {
  std::vector<std::byte> bytes(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto mixed = (static_cast<std::uint32_t>(i) + 1) * 2654435761U + seed * 40503U;
    bytes[i] = static_cast<std::byte>(mixed >> 13);
  }
  return bytes;
}

inline std::vector<std::byte> copy_of(std::span<const std::byte> bytes) {
  return {bytes.begin(), bytes.end()};
}

inline std::span<std::byte> bytes_of(const SharedBuffer& buffer) {
  return {static_cast<std::byte*>(buffer.data()), buffer.bytes()};
}

inline RpcServerOptions rpc_server_options(std::function<void(RpcRequest)> on_request) {
  RpcServerOptions options;
  options.secret = kRpcSecret;
  options.on_request = std::move(on_request);
  return options;
}

inline RpcClientOptions rpc_client_options(int port, RpcArena* arena = nullptr) {
  RpcClientOptions options;
  options.port = port;
  options.secret = kRpcSecret;
  options.name = "worker 3";
  options.arena = arena;
  options.connect_timeout = kTestDeadline;
  return options;
}

inline RpcCall rpc_call(std::uint32_t method) {
  RpcCall call;
  call.method = method;
  call.timeout = kTestDeadline;
  return call;
}

// The reply's payload is the request's, each byte turned over; status, header and method come back.
inline void answer_turned(RpcRequest request) {
  const std::span<const std::byte> payload = request.payload();
  const std::vector<std::byte> bytes = copy_of(payload);
  const std::span<std::byte> space = request.reply_space(bytes.size());
  for (std::size_t i = 0; i < bytes.size(); ++i) space[i] = ~bytes[i];
  const std::string header = request.header();
  request.reply(request.method() + 1, "re: " + header, bytes.size());
}

inline std::vector<std::byte> turned(std::vector<std::byte> bytes) {
  for (std::byte& byte : bytes) byte = ~byte;
  return bytes;
}

}  // namespace trireme::testing
