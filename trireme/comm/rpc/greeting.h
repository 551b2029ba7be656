// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How a client and a server come to trust one another, and learn whether they share memory, before
// the frames of wire.h begin.
//
// The first four frames are those of the rendezvous (meeting/handshake.h), with a rank that no
// world has, so that no proof made here is worth anything there. Then the client says who it is
// (introduction), and the server whether it serves it (welcome, or refused with a reason). A client
// with an arena names a memory of it: only a server that has mapped that one shares memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "trireme/base/deadline.h"
#include "trireme/base/file_descriptor.h"
#include "trireme/comm/meeting/admission.h"
#include "trireme/comm/meeting/frame.h"
#include "trireme/comm/rpc/client.h"
#include "trireme/comm/rpc/memory.h"

namespace trireme {

// In a client's hello: no world has so many ranks.
constexpr std::uint32_t kNoRank = 0xffffffff;

// Throws ConfigError when the address wants a secret and there is none. what is "the server" or
// the like.
void check_secret(std::string_view what, const std::string& address, const std::string& secret);

struct Introduction {
  std::string name;
  std::string host_id;
  std::optional<MemoryNotice> probe;  // none: the client has no arena
};

std::string encode_introduction(const Introduction& introduction);
// Throws ProtocolError.
Introduction decode_introduction(std::string_view payload);

// The server's side of one connection. Pure, but that it maps the probe: frames in, frames out.
class Greeting {
 public:
  // Both must outlive it.
  Greeting(std::string_view secret, std::string_view host_id)
      : admission_(secret), host_id_(host_id) {}

  // Takes what came and appends what there is to answer. Throws ProtocolError when it breaks the
  // protocol or does not prove that it knows the secret.
  void handle(std::string_view bytes, std::string& answer);

  bool stranger() const { return admission_.stranger(); }
  // After that the frames of wire.h begin.
  bool welcomed() const { return welcomed_; }
  // Why it is not served, once the answer says so; then the connection is to be closed.
  const std::string& refusal() const { return refusal_; }
  // Once it is welcome.
  const std::string& name() const { return name_; }

 private:
  void introduce(const Frame& frame, std::string& answer);
  std::string why_not_served() const;

  Admission admission_;
  const std::string_view host_id_;
  FrameDecoder decoder_{kStrangerFrameLimit};
  bool welcomed_ = false;
  std::string refusal_;
  std::string name_;
};

// The client's side.
struct Greeted {
  FileDescriptor fd;
  bool shares_memory = false;
  std::string why_not;  // when both are on one host, the client has an arena, and yet it cannot be
                        // shared
};

// Blocks. Errors: see RpcClient.
Greeted greet_server(const RpcClientOptions& options);

}  // namespace trireme
