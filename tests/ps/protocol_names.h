// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How the protocol's model names what it follows: tickets of requests, contributions of workers.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>

#include "tests/ps/protocol_model.h"

namespace trireme::ps {

// A ticket says what it was asked for.
inline Ticket ticket_of(Message::Request request, WorkerId worker, std::int64_t clock, Term term) {
  return ((term * 64 + worker) * 64 + clock) * 8 + static_cast<Ticket>(request);
}
inline Message::Request request_of(Ticket ticket) {
  return static_cast<Message::Request>(ticket % 8);
}
inline std::int64_t clock_of(Ticket ticket) { return ticket / 8 % 64; }
inline WorkerId worker_of(Ticket ticket) { return ticket / 8 / 64 % 64; }
inline Term term_of(Ticket ticket) { return ticket / 8 / 64 / 64; }

// The contribution of a worker to a step.
inline std::string contribution(WorkerId worker, std::int64_t clock) {
  return fmt::format("{}.{} ", worker, clock);
}

// An update, as values hold it: with the term in which a primary applied it, so that it is another
// than one of the same contributions that another primary applied.
inline std::string update_text(const Op& op, Term term) {
  if (op.kind != Op::Kind::kUpdate) return {};
  std::string text;
  for (const Member& member : op.members) text += contribution(member.worker, member.clock - 1);
  return text + fmt::format("|{} ", term);
}

}  // namespace trireme::ps
