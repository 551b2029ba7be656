// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Non-blocking TCP sockets that close themselves.
//
// Connections end when the other host has said nothing for 4 s, not even that it still exists: the
// kernels ask one another each second. A host that vanishes or a link that is cut is thus seen
// within 5 s, while a process that is stopped or busy is not, because its kernel answers for it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "trireme/base/deadline.h"
#include "trireme/base/file_descriptor.h"

namespace trireme {

// "host:port", "[::1]:port".
std::string endpoint_text(const std::string& address, int port);

// True for 127.0.0.0/8, ::1 and localhost, by name: nothing is resolved.
bool is_loopback(const std::string& address);

// Listens on address:port: on the address itself where this host has it, else, for a name that
// leads here by another way, on all interfaces. Throws ConfigError when the port is in use; who is
// the subject of what it says.
FileDescriptor listen_on(const std::string& address, int port, std::string_view who = "rank 0");

// The numeric address behind a name or address that is one of this host's own; empty when none is.
std::string own_address(const std::string& address, std::string& why);

// Makes a socket that already listens fit for us. Throws ConfigError when it does not listen.
FileDescriptor adopt_listener(FileDescriptor listener, std::string_view who = "rank 0");
// Of a socket that is bound.
int local_port(const FileDescriptor& fd);

// The next waiting connection, or none. exhausted is set when one waits that cannot be had, because
// this process or the system has no descriptors or memory left.
std::optional<FileDescriptor> accept_from(const FileDescriptor& listener, bool& exhausted);

// One attempt, of a few seconds at most for each address behind the name. On failure returns none
// and says why.
std::optional<FileDescriptor> connect_to(const std::string& address, int port,
                                         const Deadline& deadline, std::string& why);

// Makes the kernel end the connection when the other host is silent; see above. fd stays the
// caller's.
void end_when_silent(int fd);

enum class IoStatus { kOk, kClosed };
// Appends what there is to bytes, without blocking.
IoStatus read_available(const FileDescriptor& fd, std::string& bytes);
// Sends as much of bytes as goes without blocking and removes it.
IoStatus write_available(const FileDescriptor& fd, std::string& bytes);

// Numeric addresses, for messages and for other sockets of this host.
std::string peer_address(const FileDescriptor& fd);
std::string local_address(const FileDescriptor& fd);

}  // namespace trireme
