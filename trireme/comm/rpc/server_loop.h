// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The thread of a server: it admits strangers, and moves the bytes of those whom it trusts.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "trireme/base/deadline.h"
#include "trireme/base/file_descriptor.h"
#include "trireme/comm/meeting/rendezvous.h"
#include "trireme/comm/rpc/event_set.h"
#include "trireme/comm/rpc/greeting.h"
#include "trireme/comm/rpc/server.h"
#include "trireme/comm/rpc/server_connection.h"

namespace trireme::detail {

class ServerLoop {
 public:
  explicit ServerLoop(RpcServerOptions options);
  ~ServerLoop() { close(); }
  ServerLoop(const ServerLoop&) = delete;
  ServerLoop& operator=(const ServerLoop&) = delete;

  int port() const { return port_; }
  void close();

 private:
  // A connection in its greeting.
  struct Guest {
    Guest(std::string_view secret, std::string_view host_id) : greeting(secret, host_id) {}
    FileDescriptor fd;
    std::string address;
    std::string outbox;
    Greeting greeting;
    Deadline deadline = Deadline::after(kStrangerTime);
  };
  using Guests = std::map<std::uint64_t, Guest>;
  using Connections = std::map<std::uint64_t, std::shared_ptr<ServerConnection>>;

  // All of the thread.
  void run();
  void serve_events();
  std::chrono::milliseconds time_to_wait() const;
  void admit();
  void relieve_shortage();
  void serve_guest(Guests::iterator guest);
  void refuse(Guests::iterator guest, std::string_view why);
  void refuse_the_slow();
  void welcome(Guests::iterator guest);
  void serve_connection(Connections::iterator connection, std::uint32_t events);
  void end(Connections::iterator connection, const std::string& why);

  // Constant after construction.
  const RpcServerOptions options_;
  const std::string host_id_;
  const FileDescriptor listener_;
  const int port_;

  EventSet events_;
  std::atomic<bool> closing_ = false;

  // Of the thread. Keys are those of the events, and the connections' ids; never used again.
  std::uint64_t next_key_;
  Guests guests_;
  Connections connections_;
  std::optional<Deadline> shortage_;  // nobody is accepted until then
  bool shortage_logged_ = false;
  std::uint64_t refused_ = 0;
  std::uint64_t reported_ = 0;  // of those refused
  Deadline next_report_;

  std::mutex join_mutex_;
  std::thread thread_;
};

}  // namespace trireme::detail
