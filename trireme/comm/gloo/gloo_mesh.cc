// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/gloo/gloo_mesh.h"

#include <gloo/common/error.h>
#include <gloo/transport/address.h>
#include <gloo/transport/context.h>
#include <gloo/transport/tcp/device.h>
#include <net/if.h>

#include <algorithm>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/gloo/sigpipe.h"
#include "trireme/comm/meeting/socket.h"

namespace trireme {
namespace {

// Gloo waits five times a context's timeout for a connection.
constexpr int kGlooConnectFactor = 5;

std::string endpoint_key(int from, int to) { return fmt::format("gloo/{}/{}", from, to); }

// Gloo follows a null pointer when it is given a name that is none or not this host's, so those are
// refused here.
std::shared_ptr<gloo::transport::Device> make_device(const Member& self,
                                                     const std::string& interface) {
  const std::string& asked = interface.empty() ? self.ip : interface;
  gloo::transport::tcp::attr attributes;
  std::string why;
  if (!interface.empty() && if_nametoindex(interface.c_str()) != 0) {
    attributes.iface = interface;
  } else {
    attributes.hostname = own_address(asked, why);
  }
  if (!attributes.iface.empty() || !attributes.hostname.empty()) {
    try {
      return gloo::transport::tcp::CreateDevice(attributes);
    } catch (const std::exception& error) {
      why = error.what();
    }
  }
  throw_error<ConfigError>(
      "rank {} on {} cannot bind the gloo engine to {}: {}; set the network interface to one of "
      "this host's",
      self.rank, self.host_name, asked, why);
}

void refuse_loopback(const Member& self, const std::vector<Member>& members,
                     const std::string& address, const std::string& interface) {
  const bool others = std::any_of(members.begin(), members.end(), [&](const Member& member) {
    return member.host_id != self.host_id;
  });
  const std::string& bound = interface.empty() ? self.ip : interface;
  if (others && !is_loopback(address) && (is_loopback(bound) || bound == "lo")) {
    throw_error<ConfigError>(
        "rank {} on {} would bind the gloo engine to {}, where ranks on other hosts cannot reach "
        "it; set the network interface",
        self.rank, self.host_name, bound);
  }
}

}  // namespace

GlooMesh::GlooMesh(int rank, const std::vector<Member>& members, const std::string& address,
                   const std::string& interface, ControlPlane& control, FailureLatch& latch,
                   const Deadline& deadline)
    : rank_(rank), size_(static_cast<int>(members.size())) {
  const NoSigpipe no_sigpipe;  // for Gloo's device thread, too
  const Member& self = members[static_cast<std::size_t>(rank)];
  refuse_loopback(self, members, address, interface);
  device_ = make_device(self, interface);
  context_ = device_->createContext(rank_, size_);
  context_->setTimeout(
      std::max(deadline.remaining() / kGlooConnectFactor, std::chrono::milliseconds(1)));
  for (int peer = 0; peer < size_; ++peer) {
    if (peer == rank_) continue;
    const std::vector<char> bytes = context_->createPair(peer)->address().bytes();
    control.put(endpoint_key(rank_, peer), std::string(bytes.begin(), bytes.end()));
  }
  // A lost rank must not keep the others waiting for its connection.
  const int subscription = latch.subscribe([this] { close_pairs(); });
  const auto connect = [&](int peer) {
    const std::string bytes = control.get(endpoint_key(peer, rank_), deadline,
                                          fmt::format("the gloo endpoint of rank {}", peer));
    try {
      context_->getPair(peer)->connect(std::vector<char>(bytes.begin(), bytes.end()));
    } catch (const gloo::Exception& error) {
      latch.throw_if_failed();
      throw_error<TimeoutError>("rank {} and rank {} on {} cannot connect for the gloo engine: {}",
                                rank_, peer, members[static_cast<std::size_t>(peer)].host_name,
                                error.what());
    }
    latch.throw_if_failed();
  };
  try {
    for (int peer = 0; peer < size_; ++peer) {
      if (peer != rank_) connect(peer);
    }
  } catch (...) {
    latch.unsubscribe(subscription);
    throw;
  }
  latch.unsubscribe(subscription);
  log_debug("gloo engine on {}", device_->str());
}

GlooMesh::~GlooMesh() { close_pairs(); }

void GlooMesh::close_pairs() {
  for (int peer = 0; peer < size_; ++peer) {
    if (peer != rank_) context_->getPair(peer)->close();
  }
}

std::unique_ptr<gloo::transport::UnboundBuffer> GlooMesh::buffer(void* data, std::size_t bytes) {
  return context_->createUnboundBuffer(data, bytes);
}

}  // namespace trireme
