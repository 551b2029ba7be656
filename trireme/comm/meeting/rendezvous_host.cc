// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The side of rank 0. Every connection is a guest who moves through the stages below; the poll loop
// gives each what has arrived for it. Whatever goes wrong with a stranger ends with that stranger;
// whatever goes wrong with a member ends the meeting for all.

#include <poll.h>

#include <algorithm>
#include <list>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/meeting/handshake.h"
#include "trireme/comm/meeting/rendezvous.h"

namespace trireme::detail {
namespace {

// Refused strangers that are logged one by one; the rest is counted.
constexpr int kLoggedStrangers = 16;
// For the verdict to leave when the meeting fails.
constexpr std::chrono::milliseconds kFarewellTime = std::chrono::seconds(1);

struct Guest {
  enum class Stage { kHello, kProof, kMember, kJoined, kGone };

  Connection connection;
  std::string address;
  Deadline deadline = Deadline::after(kStrangerTime);  // until it is a member
  Stage stage = Stage::kHello;
  std::string hello;
  std::string nonce;
  int rank = -1;

  bool stranger() const { return stage == Stage::kHello || stage == Stage::kProof; }
  void send(FrameType type, std::string_view payload) {
    connection.outbox += encode_frame(type, payload);
  }
};

class Host {
 public:
  Host(const WorldOptions& options, FileDescriptor listener)
      : options_(options),
        deadline_(Deadline::after(options.join_timeout)),
        listener_(listener ? adopt_listener(std::move(listener))
                           : listen_on(options.address, options.port)),
        members_(static_cast<std::size_t>(options.size)) {
    members_[0] = describe_self(options);
    joined_.assign(members_.size(), false);
    joined_[0] = true;
  }

  Meeting run();

 private:
  using Guests = std::list<Guest>;

  void wait_for_events();
  void admit();
  void serve(Guest& guest);
  void handle(Guest& guest, const Frame& frame);
  void challenge(Guest& guest, const Frame& frame);
  void trust(Guest& guest, const Frame& frame);
  void join(Guest& guest, const Frame& frame);
  void refuse_stranger(Guest& guest, std::string_view why);
  [[noreturn]] void fail(const Failure& failure);
  std::vector<int> missing() const;
  void choose_own_address();
  void compare_fingerprints();
  Meeting welcome();

  const WorldOptions& options_;
  Deadline deadline_;
  FileDescriptor listener_;
  Guests guests_;
  std::vector<Member> members_;  // by rank
  std::vector<bool> joined_;
  int refused_ = 0;
};

Meeting Host::run() {
  while (!missing().empty()) {
    if (deadline_.expired()) {
      fail({Failure::Kind::kTimeout, -1,
            fmt::format(
                "{} of {} did not join at {}:{} in time; look at their logs, or whether they "
                "were started",
                name_ranks(missing()), options_.size, options_.address, options_.port)});
    }
    wait_for_events();
    admit();
    for (Guest& guest : guests_) serve(guest);
    guests_.remove_if([](const Guest& guest) { return guest.stage == Guest::Stage::kGone; });
  }
  if (refused_ > kLoggedStrangers) log_warn("{} strangers were refused", refused_);
  choose_own_address();
  compare_fingerprints();
  return welcome();
}

void Host::wait_for_events() {
  std::vector<pollfd> ready{{listener_.get(), POLLIN, 0}};
  Deadline next = deadline_;
  for (const Guest& guest : guests_) {
    const bool unsent = !guest.connection.outbox.empty();
    ready.push_back(
        {guest.connection.fd.get(), static_cast<short>(POLLIN | (unsent ? POLLOUT : 0)), 0});
    if (guest.stranger() && guest.deadline.time_point() < next.time_point()) next = guest.deadline;
  }
  const auto time = std::min<std::int64_t>(next.remaining().count(), 1000);
  poll(ready.data(), ready.size(), static_cast<int>(time));
}

void Host::admit() {
  // Bounded, so that a flood does not keep the guests waiting.
  for (std::size_t i = 0; i < kMaxStrangers; ++i) {
    std::optional<FileDescriptor> fd = accept_from(listener_);
    if (!fd) return;
    const auto strangers = std::count_if(guests_.begin(), guests_.end(),
                                         [](const Guest& guest) { return guest.stranger(); });
    if (static_cast<std::size_t>(strangers) >= kMaxStrangers) {
      const auto oldest = std::find_if(guests_.begin(), guests_.end(),
                                       [](const Guest& guest) { return guest.stranger(); });
      refuse_stranger(*oldest, "too many strangers");
      guests_.erase(oldest);
    }
    Guest& guest = guests_.emplace_back();
    guest.address = peer_address(*fd);
    guest.connection.fd = *std::move(fd);
    guest.connection.decoder.set_limit(kStrangerFrameLimit);
  }
}

void Host::serve(Guest& guest) {
  std::string bytes;
  const bool closed = read_available(guest.connection.fd, bytes) == IoStatus::kClosed;
  try {
    guest.connection.decoder.feed(bytes);
    while (guest.stage != Guest::Stage::kGone) {
      const std::optional<Frame> frame = guest.connection.decoder.next();
      if (!frame) break;
      handle(guest, *frame);
    }
  } catch (const ProtocolError& error) {
    if (!guest.stranger()) {
      fail({Failure::Kind::kComm, guest.rank,
            fmt::format("rank {} at {} does not keep to the protocol: {}", guest.rank,
                        guest.address, error.what())});
    }
    refuse_stranger(guest, error.what());
  }
  if (guest.stage == Guest::Stage::kGone) return;
  const bool lost =
      write_available(guest.connection.fd, guest.connection.outbox) == IoStatus::kClosed || closed;
  if (lost && !guest.stranger()) {
    fail({Failure::Kind::kPeerLost, guest.rank,
          fmt::format("rank {} at {} went away before all ranks had joined; see its log",
                      guest.rank, guest.address)});
  }
  if (lost) {
    refuse_stranger(guest, "it went away before it proved that it knows the job's secret");
  } else if (guest.stranger() && guest.deadline.expired()) {
    refuse_stranger(guest, "it was too slow to prove that it knows the job's secret");
  }
}

void Host::handle(Guest& guest, const Frame& frame) {
  if (guest.stage == Guest::Stage::kHello && frame.type == FrameType::kHello) {
    challenge(guest, frame);
  } else if (guest.stage == Guest::Stage::kProof && frame.type == FrameType::kProof) {
    trust(guest, frame);
  } else if (guest.stage == Guest::Stage::kMember && frame.type == FrameType::kMember) {
    join(guest, frame);
  } else {
    throw_error<ProtocolError>("frame of type {} out of turn", static_cast<int>(frame.type));
  }
}

void Host::challenge(Guest& guest, const Frame& frame) {
  guest.rank = static_cast<int>(decode_hello(frame.payload).rank);
  guest.hello = frame.payload;
  guest.nonce = make_nonce();
  const std::string proof =
      make_proof(Prover::kRankZero, options_.secret, guest.hello, guest.nonce);
  guest.send(FrameType::kChallenge, FieldWriter().raw(guest.nonce).raw(proof).bytes());
  guest.stage = Guest::Stage::kProof;
}

void Host::trust(Guest& guest, const Frame& frame) {
  if (!proof_is(frame.payload,
                make_proof(Prover::kMember, options_.secret, guest.hello, guest.nonce))) {
    throw ProtocolError("it does not know the job's secret");
  }
  guest.stage = Guest::Stage::kMember;
  guest.send(FrameType::kTrusted, {});
  guest.connection.decoder.set_limit(kMemberFrameLimit);
  const Hello hello = decode_hello(guest.hello);
  const auto size = static_cast<std::uint32_t>(options_.size);
  if (hello.size != size) {
    fail({Failure::Kind::kConfig, guest.rank,
          fmt::format("rank {} at {} was told that the world has {} ranks, rank 0 that it has {}",
                      hello.rank, guest.address, hello.size, size)});
  }
  if (hello.rank >= size) {
    fail({Failure::Kind::kConfig, guest.rank,
          fmt::format("rank {} at {} is not below the world's size {}", hello.rank, guest.address,
                      size)});
  }
  if (joined_[hello.rank]) {
    fail({Failure::Kind::kConfig, guest.rank,
          fmt::format("two processes say that they are rank {}: one on {}, one at {}", hello.rank,
                      members_[hello.rank].host_name, guest.address)});
  }
}

void Host::join(Guest& guest, const Frame& frame) {
  FieldReader reader(frame.payload);
  const auto patience = std::chrono::milliseconds(
      std::min<std::uint64_t>(reader.u64(), static_cast<std::uint64_t>(INT32_MAX)));
  const Deadline theirs = Deadline::after(patience);
  if (theirs.time_point() < deadline_.time_point()) deadline_ = theirs;
  const auto rank = static_cast<std::size_t>(guest.rank);
  Member member = decode_member(reader);
  reader.finish();
  if (member.rank != guest.rank) {
    throw_error<ProtocolError>("it proved that it is rank {} and says {}", rank, member.rank);
  }
  if (joined_[rank]) {
    fail({Failure::Kind::kConfig, guest.rank,
          fmt::format("two processes say that they are rank {}: one on {}, one at {}", rank,
                      members_[rank].host_name, guest.address)});
  }
  members_[rank] = std::move(member);
  joined_[rank] = true;
  guest.stage = Guest::Stage::kJoined;
}

void Host::refuse_stranger(Guest& guest, std::string_view why) {
  if (refused_++ < kLoggedStrangers) {
    log_warn("refused a connection from {} to the rendezvous: {}", guest.address, why);
  }
  guest.stage = Guest::Stage::kGone;
}

void Host::fail(const Failure& failure) {
  const std::string verdict = encode_frame(FrameType::kRefused, encode_failure(failure));
  std::vector<Guest*> members;
  for (Guest& guest : guests_) {
    if (guest.stranger() || guest.stage == Guest::Stage::kGone) continue;
    guest.connection.outbox += verdict;
    members.push_back(&guest);
  }
  const Deadline farewell = Deadline::after(kFarewellTime);
  while (!members.empty() && !farewell.expired()) {
    std::vector<pollfd> ready;
    for (const Guest* guest : members) ready.push_back({guest->connection.fd.get(), POLLOUT, 0});
    poll(ready.data(), ready.size(), static_cast<int>(farewell.remaining().count()));
    std::erase_if(members, [](Guest* guest) {
      Connection& connection = guest->connection;
      return write_available(connection.fd, connection.outbox) == IoStatus::kClosed ||
             connection.outbox.empty();
    });
  }
  failure.raise();
}

std::vector<int> Host::missing() const {
  std::vector<int> ranks;
  for (int rank = 0; rank < options_.size; ++rank) {
    if (!joined_[static_cast<std::size_t>(rank)]) ranks.push_back(rank);
  }
  return ranks;
}

// As the ranks of other hosts see it; only when there are none is it the loopback's.
void Host::choose_own_address() {
  for (const Guest& guest : guests_) {
    if (guest.stage != Guest::Stage::kJoined) continue;
    const std::string ip = local_address(guest.connection.fd);
    if (members_[0].ip.empty() || is_loopback(members_[0].ip)) members_[0].ip = ip;
  }
}

void Host::compare_fingerprints() {
  for (const Member& member : members_) {
    const std::string message = fingerprint_difference(members_[0], member);
    if (!message.empty()) fail({Failure::Kind::kConfig, member.rank, message});
  }
}

Meeting Host::welcome() {
  FieldWriter writer;
  for (const Member& member : members_) encode_member(writer, member);
  Meeting meeting;
  meeting.members = members_;
  for (Guest& guest : guests_) {
    if (guest.stage != Guest::Stage::kJoined) continue;
    guest.send(FrameType::kWelcome, writer.bytes());
    meeting.connections.emplace(guest.rank, std::move(guest.connection));
  }
  return meeting;
}

}  // namespace

Meeting meet_as_rank_zero(const WorldOptions& options, FileDescriptor listener) {
  return Host(options, std::move(listener)).run();
}

}  // namespace trireme::detail
