// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A message engine without a network: ranks are threads, messages go through a table. Payload may
// lie on a "device": memory at addresses of its own, at which the host finds nothing, so an engine
// that touches payload other than through Memory and the payload port crashes.
#pragma once

#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/comm/message/memory.h"
#include "trireme/comm/message/message_engine.h"
#include "trireme/comm/message/message_port.h"

namespace trireme::testing {

// Device addresses are host addresses plus this, outside of what a process can have.
constexpr std::uintptr_t kDeviceShift = std::uintptr_t{1} << 62;

inline std::byte* on_device(const void* host) {
  return reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(host) + kDeviceShift);
}
inline std::byte* on_host(const void* device) {
  return reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(device) - kDeviceShift);
}

// The messages of all ranks.
class MessageTable {
 public:
  using Key = std::tuple<int, int, Lane::Purpose, int, std::uint64_t>;  // from, to, lane

  static Key key(int from, int to, const Lane& lane) {
    return {from, to, lane.purpose, lane.tag, lane.sequence};
  }
  void put(const Key& key, std::vector<std::byte> message) {
    const std::lock_guard lock(mutex_);
    messages_[key].push_back(std::move(message));
    changed_.notify_all();
  }
  // Empty at the deadline.
  std::vector<std::byte> take(const Key& key, const Deadline& deadline) {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, deadline.time_point(), [&] { return !messages_[key].empty(); });
    if (messages_[key].empty()) return {};
    std::vector<std::byte> message = std::move(messages_[key].front());
    messages_[key].pop_front();
    return message;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Key, std::deque<std::vector<std::byte>>> messages_;  // guarded by mutex_
};

class TablePort final : public MessagePort {
 public:
  TablePort(const GroupScope& scope, MessageTable& table, bool device)
      : scope_(scope), table_(table), device_(device) {}
  std::string_view name() const override { return "table"; }
  std::unique_ptr<Flight> make_flight() override { return std::make_unique<TableFlight>(*this); }

 private:
  class TableFlight final : public Flight {
   public:
    explicit TableFlight(TablePort& port) : port_(port) {}
    void send(int peer, const Lane& lane, const void* data, std::size_t bytes) override {
      if (bytes == 0) return;
      const auto* from = static_cast<const std::byte*>(port_.device_ ? on_host(data) : data);
      port_.table_.put(MessageTable::key(port_.scope_.rank, peer, lane), {from, from + bytes});
    }
    void receive(int peer, const Lane& lane, void* data, std::size_t bytes) override {
      if (bytes == 0) return;
      awaited_.push_back({peer, lane, port_.device_ ? on_host(data) : data, bytes});
    }
    void wait(const OperationName& what, const Deadline& deadline) override {
      for (const Awaited& awaited : awaited_) {
        const std::vector<std::byte> message = port_.table_.take(
            MessageTable::key(awaited.peer, port_.scope_.rank, awaited.lane), deadline);
        if (message.empty()) timeout_error(port_.scope_, what, {awaited.peer});
        if (message.size() > awaited.bytes) throw InternalError("a message that is too long");
        std::memcpy(awaited.data, message.data(), message.size());
      }
      awaited_.clear();
    }

   private:
    struct Awaited {
      int peer;
      Lane lane;
      void* data;
      std::size_t bytes;
    };
    TablePort& port_;
    std::vector<Awaited> awaited_;
  };

  const GroupScope& scope_;
  MessageTable& table_;
  const bool device_;
};

class DeviceMemory final : public Memory {
 public:
  std::unique_ptr<Scratch> make_scratch() override { return std::make_unique<DeviceScratch>(); }
  bool is_host() const override { return false; }
  void copy(void* to, const void* from, std::size_t bytes) override {
    if (bytes > 0) std::memmove(on_host(to), on_host(from), bytes);
  }
  void reduce(const NodeReduction& reduction, std::span<const void* const> inputs, void* out,
              std::int64_t count) override {
    std::vector<const void*> host;
    for (const void* input : inputs) host.push_back(on_host(input));
    reduce_nodes(reduction, host, on_host(out), count);
  }

 private:
  class DeviceScratch final : public Scratch {
   public:
    std::byte* reserve(std::size_t bytes) override {
      if (bytes > data_.size()) data_.resize(bytes);
      return on_device(data_.data());
    }

   private:
    std::vector<std::byte> data_;
  };
};

// The scope of one rank of a group of n; hosts[r] is where rank r lives, all on one when empty.
inline GroupScope table_scope(int rank, int n, const std::vector<std::string>& hosts = {}) {
  GroupScope scope;
  scope.world = std::make_shared<WorldState>();
  scope.world->rank = rank;
  scope.world->members.resize(static_cast<std::size_t>(n));
  scope.name = "table";
  scope.id = 7;
  scope.rank = rank;
  for (int i = 0; i < n; ++i) {
    Member& member = scope.world->members[static_cast<std::size_t>(i)];
    member.rank = i;
    member.host_name = "host";
    if (!hosts.empty()) member.host_id = hosts[static_cast<std::size_t>(i)];
    scope.world_ranks.push_back(i);
  }
  return scope;
}

inline std::unique_ptr<Engine> make_table_engine(const GroupScope& scope, MessageTable& table,
                                                 bool device) {
  auto meeting = std::make_shared<TablePort>(scope, table, false);
  if (!device) return make_message_engine(scope, meeting, meeting, make_host_memory());
  return make_message_engine(scope, meeting, std::make_shared<TablePort>(scope, table, true),
                             std::make_unique<DeviceMemory>());
}

}  // namespace trireme::testing
