// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The side of rank 0. Every connection is a guest who moves through the stages of its admission;
// the poll loop gives each what has arrived for it. Whatever goes wrong with a stranger ends with
// that stranger; whatever goes wrong with a member ends the meeting for all.

#include <poll.h>

#include <algorithm>
#include <list>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/meeting/admission.h"
#include "trireme/comm/meeting/rendezvous.h"

namespace trireme::detail {
namespace {

// Refused strangers that are logged one by one; the others are counted, and their number is logged
// this often.
constexpr int kLoggedStrangers = 16;
constexpr std::chrono::milliseconds kStrangerReportTime = std::chrono::seconds(10);
// For the verdict to leave when the meeting fails.
constexpr std::chrono::milliseconds kFarewellTime = std::chrono::seconds(1);
// Until a connection is accepted again when there was no descriptor left for one.
constexpr std::chrono::milliseconds kShortageTime{100};

struct Guest {
  explicit Guest(std::string_view secret) : admission(secret) {}

  Connection connection;
  std::string address;
  Deadline deadline = Deadline::after(kStrangerTime);  // until it is a member
  Admission admission;
  bool gone = false;

  bool stranger() const { return admission.stranger(); }
  bool joined() const { return admission.stage() == Admission::Stage::kJoined; }
  // What it claims, or has proved to be.
  int rank() const { return static_cast<int>(admission.hello().rank); }
};

class Host {
 public:
  Host(const WorldOptions& options, Member self, FileDescriptor listener)
      : options_(options),
        deadline_(Deadline::after(options.join_timeout)),
        listener_(listener ? adopt_listener(std::move(listener))
                           : listen_on(options.address, options.port)),
        members_(static_cast<std::size_t>(options.size)) {
    members_[0] = std::move(self);
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
  void check_claim(const Guest& guest);
  void join(const Guest& guest);
  void relieve_shortage();
  Guest* oldest_stranger();
  void refuse_stranger(Guest& guest, std::string_view why);
  void report_strangers();
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
  Deadline shortage_ = Deadline::after(std::chrono::milliseconds(0));  // of descriptors, until then
  bool shortage_logged_ = false;
  int refused_ = 0;
  int reported_ = 0;
  Deadline next_report_ = Deadline::after(std::chrono::milliseconds(0));
};

Meeting Host::run() {
  while (!missing().empty()) {
    if (deadline_.expired()) {
      fail({Failure::Kind::kTimeout, -1,
            fmt::format("{} of {} did not join at {} in time; look at their logs, or whether they "
                        "were started",
                        name_ranks(missing()), options_.size,
                        endpoint_text(options_.address, options_.port))});
    }
    wait_for_events();
    admit();
    for (Guest& guest : guests_) serve(guest);
    guests_.remove_if([](const Guest& guest) { return guest.gone; });
    if (next_report_.expired()) report_strangers();
  }
  report_strangers();
  choose_own_address();
  compare_fingerprints();
  return welcome();
}

void Host::wait_for_events() {
  const bool accepts = shortage_.expired();
  std::vector<pollfd> ready{{accepts ? listener_.get() : -1, POLLIN, 0}};
  Deadline next = accepts ? deadline_ : shortage_;
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
  if (!shortage_.expired()) return;
  // Bounded, so that a flood does not keep the guests waiting.
  for (std::size_t i = 0; i < kMaxStrangers; ++i) {
    bool exhausted = false;
    std::optional<FileDescriptor> fd = accept_from(listener_, exhausted);
    if (exhausted) relieve_shortage();
    if (!fd) return;
    const auto strangers = std::count_if(guests_.begin(), guests_.end(), [](const Guest& guest) {
      return guest.stranger() && !guest.gone;
    });
    if (static_cast<std::size_t>(strangers) >= kMaxStrangers) {
      refuse_stranger(*oldest_stranger(), "too many strangers");
    }
    Guest& guest = guests_.emplace_back(options_.secret);
    guest.address = peer_address(*fd);
    guest.connection.fd = *std::move(fd);
    guest.connection.decoder.set_limit(kStrangerFrameLimit);
  }
}

// A stranger goes for the one who waits, who may be a rank.
void Host::relieve_shortage() {
  if (!std::exchange(shortage_logged_, true)) {
    log_warn(
        "rank 0 has no file descriptors left for more connections; raise its limit (ulimit -n)");
  }
  if (Guest* oldest = oldest_stranger()) {
    refuse_stranger(*oldest, "no file descriptors left");
  } else {
    shortage_ = Deadline::after(kShortageTime);
  }
}

Guest* Host::oldest_stranger() {
  for (Guest& guest : guests_) {
    if (guest.stranger() && !guest.gone) return &guest;
  }
  return nullptr;
}

void Host::serve(Guest& guest) {
  if (guest.gone) return;
  std::string bytes;
  const bool closed = read_available(guest.connection.fd, bytes) == IoStatus::kClosed;
  try {
    guest.connection.decoder.feed(bytes);
    while (const std::optional<Frame> frame = guest.connection.decoder.next()) {
      handle(guest, *frame);
    }
  } catch (const ProtocolError& error) {
    if (!guest.stranger()) {
      fail({Failure::Kind::kComm, guest.rank(),
            fmt::format("rank {} at {} does not keep to the protocol: {}", guest.rank(),
                        guest.address, error.what())});
    }
    return refuse_stranger(guest, error.what());
  }
  const bool lost =
      write_available(guest.connection.fd, guest.connection.outbox) == IoStatus::kClosed || closed;
  if (lost && !guest.stranger()) {
    fail({Failure::Kind::kPeerLost, guest.rank(),
          fmt::format("rank {} at {} went away before all ranks had joined; see its log",
                      guest.rank(), guest.address)});
  }
  if (lost) {
    refuse_stranger(guest, "it went away before it proved that it knows the job's secret");
  } else if (guest.stranger() && guest.deadline.expired()) {
    refuse_stranger(guest, "it was too slow to prove that it knows the job's secret");
  }
}

void Host::handle(Guest& guest, const Frame& frame) {
  const bool was_stranger = guest.stranger();
  guest.admission.handle(frame, guest.connection.outbox);
  if (was_stranger && !guest.stranger()) {
    guest.connection.decoder.set_limit(kMemberFrameLimit);
    check_claim(guest);
  } else if (guest.joined()) {
    join(guest);
  }
}

// Of one who knows the secret, before it is asked more.
void Host::check_claim(const Guest& guest) {
  const Hello& hello = guest.admission.hello();
  const auto size = static_cast<std::uint32_t>(options_.size);
  std::string wrong;
  if (hello.version != kProtocolVersion) {
    wrong = fmt::format(
        "rank {} at {} speaks version {} of the protocol between ranks, rank 0 version {}; start "
        "all ranks with the same build of Trireme",
        hello.rank, guest.address, hello.version, kProtocolVersion);
  } else if (hello.size != size) {
    wrong = fmt::format("rank {} at {} was told that the world has {} ranks, rank 0 that it has {}",
                        hello.rank, guest.address, hello.size, size);
  } else if (hello.rank >= size) {
    wrong = fmt::format("rank {} at {} is not below the world's size {}", hello.rank, guest.address,
                        size);
  } else if (joined_[hello.rank]) {
    wrong = fmt::format("two processes say that they are rank {}: one on {}, one at {}", hello.rank,
                        members_[hello.rank].host_name, guest.address);
  }
  if (!wrong.empty()) fail({Failure::Kind::kConfig, guest.rank(), wrong});
}

void Host::join(const Guest& guest) {
  // Another may have come as the same rank meanwhile.
  check_claim(guest);
  const Deadline theirs = Deadline::after(guest.admission.patience());
  if (theirs.time_point() < deadline_.time_point()) deadline_ = theirs;
  members_[guest.admission.hello().rank] = guest.admission.member();
  joined_[guest.admission.hello().rank] = true;
}

void Host::refuse_stranger(Guest& guest, std::string_view why) {
  if (++refused_ <= kLoggedStrangers) {
    log_warn("refused a connection from {} to the rendezvous: {}", guest.address, why);
    reported_ = refused_;
  }
  guest.gone = true;
  guest.connection.fd = FileDescriptor();
}

void Host::report_strangers() {
  next_report_ = Deadline::after(kStrangerReportTime);
  if (refused_ == reported_) return;
  log_warn("refused {} more connections to the rendezvous, {} in all", refused_ - reported_,
           refused_);
  reported_ = refused_;
}

void Host::fail(const Failure& failure) {
  report_strangers();
  const std::string verdict = encode_frame(FrameType::kRefused, encode_failure(failure));
  std::vector<Guest*> members;
  for (Guest& guest : guests_) {
    if (guest.stranger() || guest.gone) continue;
    guest.connection.outbox += verdict;
    members.push_back(&guest);
  }
  const Deadline farewell = Deadline::after(kFarewellTime);
  while (!members.empty() && !farewell.expired()) {
    std::vector<pollfd> ready;
    ready.reserve(members.size());
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
    if (!guest.joined()) continue;
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
    if (!guest.joined()) continue;
    guest.connection.outbox += encode_frame(FrameType::kWelcome, writer.bytes());
    meeting.connections.emplace(guest.rank(), std::move(guest.connection));
  }
  return meeting;
}

}  // namespace

Meeting meet_as_rank_zero(const WorldOptions& options, Member self, FileDescriptor listener) {
  return Host(options, std::move(self), std::move(listener)).run();
}

}  // namespace trireme::detail
