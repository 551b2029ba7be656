// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/gloo/gloo_mesh.h"

#include <gloo/transport/context.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/tcp/device.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/gloo/gloo_pair.h"
#include "trireme/comm/gloo/peer_connections.h"
#include "trireme/comm/gloo/sigpipe.h"
#include "trireme/comm/meeting/handshake.h"
#include "trireme/comm/meeting/socket.h"

namespace trireme {
namespace {

constexpr const char* kTokenKey = "gloo/token";
std::string endpoint_key(int rank) { return fmt::format("gloo/{}", rank); }

[[noreturn]] void cannot_bind(const Member& self, const std::string& asked,
                              const std::string& why) {
  throw_error<ConfigError>(
      "rank {} on {} cannot bind the gloo engine to {}: {}; set the network interface to one of "
      "this host's",
      self.rank, self.host_name, asked, why);
}

// The numeric address of an interface; empty when there is none of that name or it has no address.
std::string address_of_interface(const std::string& name) {
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return {};
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(all, freeifaddrs);
  for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
    if (name != one->ifa_name || one->ifa_addr == nullptr) continue;
    const bool four = one->ifa_addr->sa_family == AF_INET;
    if (!four && one->ifa_addr->sa_family != AF_INET6) continue;
    char text[NI_MAXHOST];
    const socklen_t size = four ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    if (getnameinfo(one->ifa_addr, size, text, sizeof(text), nullptr, 0, NI_NUMERICHOST) == 0) {
      return text;
    }
  }
  return {};
}

std::string address_to_bind(const Member& self, const std::string& interface) {
  const std::string of_interface = address_of_interface(interface);
  if (!of_interface.empty()) return of_interface;
  const std::string& asked = interface.empty() ? self.ip : interface;
  std::string why;
  const std::string address = own_address(asked, why);
  if (address.empty()) cannot_bind(self, asked, why);
  return address;
}

int port_of(const FileDescriptor& listener) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
  const bool four = address.ss_family == AF_INET;
  return ntohs(four ? reinterpret_cast<sockaddr_in&>(address).sin_port
                    : reinterpret_cast<sockaddr_in6&>(address).sin6_port);
}

std::shared_ptr<gloo::transport::Device> make_device(const Member& self,
                                                     const std::string& address) {
  gloo::transport::tcp::attr attributes;
  attributes.hostname = address;
  try {
    return gloo::transport::tcp::CreateDevice(attributes);
  } catch (const std::exception& error) {
    cannot_bind(self, address, error.what());
  }
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

GlooMesh::GlooMesh(const WorldOptions& options, const std::vector<Member>& members,
                   ControlPlane& control, const FailureLatch& latch, const Deadline& deadline)
    : rank_(options.rank), size_(static_cast<int>(members.size())) {
  const NoSigpipe no_sigpipe;  // for Gloo's device thread, too
  const Member& self = members[static_cast<std::size_t>(rank_)];
  refuse_loopback(self, members, options.address, options.network_interface);
  const std::string address = address_to_bind(self, options.network_interface);
  device_ = make_device(self, address);
  context_ = device_->createContext(rank_, size_);

  const FileDescriptor listener = listen_on(address, 0);
  control.put(endpoint_key(rank_), to_text({address, port_of(listener)}));
  if (rank_ == 0) control.put(kTokenKey, make_nonce());
  PeerConnections peers;
  peers.rank = rank_;
  peers.size = size_;
  // The token keeps worlds of one job apart.
  peers.secret = options.secret + control.get(kTokenKey, deadline, "rank 0's token");
  for (const Member& member : members) {
    peers.hosts.push_back(member.host_name);
    if (member.rank >= rank_) continue;
    peers.lower.push_back(endpoint_of(control.get(
        endpoint_key(member.rank), deadline,
        fmt::format("the gloo endpoint of rank {} on {}", member.rank, member.host_name))));
  }
  GlooPairs pairs(*context_, dynamic_cast<gloo::transport::tcp::Device&>(*device_), address);
  for (auto& [peer, connection] : connect_peers(peers, listener, latch, deadline)) {
    pairs.add(peer, std::move(connection));
  }
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
