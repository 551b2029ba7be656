// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Memory from which payloads go to servers of this host, and into which their replies come, without
// a copy.
//
// A server of this host maps the memory once. From then on a payload that lies in it travels as a
// place and a length, and a reply is written where the caller wants it. A server of another host
// gets the same bytes through the socket; nothing else differs.
//
//   RpcArena arena;                                              // one for a process
//   const SharedBuffer weights = arena.allocate(bytes);          // zeros
//   RpcClient client({.address = address, .port = port, .arena = &arena});
//   client.call({.method = kPull, .reply_space = space_of(weights)});
#pragma once

#include <cstddef>
#include <memory>

#include "trireme/comm/shared_buffer.h"

namespace trireme {

namespace detail {
class ArenaRegions;
}  // namespace detail

// Any thread may call any function. Buffers and clients may outlive it.
class RpcArena {
 public:
  RpcArena();
  ~RpcArena();
  RpcArena(const RpcArena&) = delete;
  RpcArena& operator=(const RpcArena&) = delete;

  // Zeros, at the start of a page, reserved. Each buffer is a memory of its own with a descriptor
  // of its own: made for few large ones that live long. The buffer may go once all calls that used
  // it have ended with a reply; see RpcCall for those that ended with an error. Throws CommError
  // when memory or descriptors are used up.
  SharedBuffer allocate(std::size_t bytes);

  // For who ends in the midst of calls, before its memory goes: servers may read on what they were
  // sent. What is freed from now on the machine has again when their connections have ended.
  void leave_to_readers();

  const std::shared_ptr<detail::ArenaRegions>& regions() const { return regions_; }

 private:
  const std::shared_ptr<detail::ArenaRegions> regions_;
};

}  // namespace trireme
