// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/world.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <optional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/ranks.h"
#include "trireme/base/error.h"
#include "trireme/comm/meeting/handshake.h"
#include "trireme/comm/meeting/rendezvous.h"
#include "trireme/comm/meeting/socket.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using testing::kTestDeadline;
using testing::listen_on_free_port;
using testing::Listener;
using testing::RankProcess;
using testing::run_rank_threads;
using testing::run_threads;
using testing::start_processes;
using testing::world_options;

// What joining threw on each rank, as "TypeOfError: message"; empty where it did not.
std::vector<std::string> join_all(const std::vector<WorldOptions>& all) {
  std::vector<std::string> errors(all.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < all.size(); ++i) {
    threads.emplace_back([&, i] {
      try {
        join_world(all[i])->close();
      } catch (const TimeoutError& error) {
        errors[i] = std::string("TimeoutError: ") + error.what();
      } catch (const ConfigError& error) {
        errors[i] = std::string("ConfigError: ") + error.what();
      } catch (const std::exception& error) {
        errors[i] = std::string("other error: ") + error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

int port_of(int listener) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.ss_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port
                   : reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
}

// A client that is no rank.
class Stranger {
 public:
  Stranger(int port, std::string says) {
    std::string why;
    std::optional<FileDescriptor> fd =
        connect_to("127.0.0.1", port, Deadline::after(kTestDeadline), why);
    if (!fd) throw std::runtime_error("a stranger cannot connect: " + why);
    fd_ = *std::move(fd);
    say(std::move(says));
  }
  void say(std::string bytes) { write_available(fd_, bytes); }
  Frame hear_frame() {
    FrameDecoder decoder(kStrangerFrameLimit);
    for (;;) {
      if (const auto frame = decoder.next()) return *frame;
      pollfd ready{fd_.get(), POLLIN, 0};
      poll(&ready, 1, static_cast<int>(kTestDeadline.count()));
      std::string bytes;
      if (read_available(fd_, bytes) == IoStatus::kClosed || bytes.empty()) {
        throw std::runtime_error("rank 0 hung up");
      }
      decoder.feed(bytes);
    }
  }
  // Blocks until rank 0 has hung up. Returns what it said before.
  std::string wait_for_end() {
    std::string heard;
    const Deadline deadline = Deadline::after(kTestDeadline);
    while (read_available(fd_, heard) == IoStatus::kOk && !deadline.expired()) {
      pollfd ready{fd_.get(), POLLIN, 0};
      poll(&ready, 1, static_cast<int>(deadline.remaining().count()));
    }
    return deadline.expired() ? "rank 0 holds on to the stranger" : heard;
  }

 private:
  FileDescriptor fd_;
};

TEST(World, OfOneNeedsNothing) {
  WorldOptions options;
  options.port = -1;
  options.address = "no.such.host.example";
  const auto world = join_world(options);
  EXPECT_EQ(world->size(), 1);
  EXPECT_EQ(world->engine(), "self");
  std::vector<float> data{1.5F, 2.5F};
  std::vector<float> gathered(2);
  world->all_reduce(buffer_of(std::span(data)), ReduceOp::kMean);
  world->start_broadcast(buffer_of(std::span(data)), 0).wait();
  world->all_gather(buffer_of(std::span(data)), buffer_of(std::span(gathered)));
  EXPECT_EQ(gathered, (std::vector<float>{1.5F, 2.5F}));
  EXPECT_EQ(world->split("part", {0})->size(), 1);
  world->barrier();
  world->close();
}

TEST(World, RefusesOptionsThatCannotBe) {
  WorldOptions good;
  good.size = 2;
  good.secret = "s";
  const auto expect_refused = [&](const char* what, const std::function<void(WorldOptions&)>& f) {
    WorldOptions options = good;
    f(options);
    EXPECT_THROW(join_world(options), ConfigError) << what;
  };
  expect_refused("rank", [](WorldOptions& o) { o.rank = 2; });
  expect_refused("negative rank", [](WorldOptions& o) { o.rank = -1; });
  expect_refused("size", [](WorldOptions& o) { o.size = 0; });
  expect_refused("engine", [](WorldOptions& o) { o.engine = "carrier pigeon"; });
  expect_refused("port", [](WorldOptions& o) { o.port = 65536; });
  expect_refused("open to the world without a secret", [](WorldOptions& o) {
    o.address = "192.0.2.1";
    o.secret.clear();
  });
}

TEST(World, LoopbackNeedsNoSecret) {
  const Listener listener = listen_on_free_port();
  auto options = world_options(2, listener);
  for (WorldOptions& own : options) own.secret.clear();
  EXPECT_THAT(join_all(options), Each(""));
}

TEST(World, PortInUseIsNamed) {
  const Listener taken = listen_on_free_port();
  WorldOptions options = world_options(2, taken)[0];
  options.listen_fd = -1;
  const std::vector<std::string> errors = join_all({options});
  EXPECT_THAT(errors[0], AllOf(HasSubstr("ConfigError"), HasSubstr("in use"),
                               HasSubstr(std::to_string(taken.port))));
  ::close(taken.fd);
}

TEST(World, RanksThatDoNotComeAreNamedToAll) {
  const Listener listener = listen_on_free_port();
  auto options = world_options(5, listener);
  for (WorldOptions& own : options) own.join_timeout = std::chrono::milliseconds(300);
  EXPECT_THAT(join_all({options[0], options[2]}),
              Each(AllOf(HasSubstr("TimeoutError: ranks 1, 3, 4 of 5 did not join at 127.0.0.1"))));
}

// The least patient rank decides, and hears from rank 0 who was missing.
TEST(World, PatienceIsShared) {
  const Listener listener = listen_on_free_port();
  auto options = world_options(3, listener);
  options[2].join_timeout = std::chrono::milliseconds(300);
  EXPECT_THAT(join_all({options[0], options[2]}), Each(HasSubstr("rank 1 of 3 did not join")));
}

TEST(World, RankZeroThatDoesNotComeIsNamed) {
  const Listener nobody = listen_on_free_port();
  ::close(nobody.fd);
  WorldOptions options = world_options(2, nobody)[1];
  options.join_timeout = std::chrono::milliseconds(200);
  EXPECT_THAT(join_all({options})[0],
              AllOf(HasSubstr("TimeoutError: rank 0 did not answer rank 1 at 127.0.0.1"),
                    HasSubstr("Connection refused")));
}

TEST(World, RanksMayComeBeforeRankZero) {
  const Listener listener = listen_on_free_port();
  ::close(listener.fd);
  auto options = world_options(3, listener);
  options[0].listen_fd = -1;
  std::atomic<int> started = 0;
  run_rank_threads(3, [&](int rank) {
    // Rank 0 listens only when the others are at it.
    started.fetch_add(1);
    while (rank == 0 && started.load() < 3) std::this_thread::yield();
    join_world(options[static_cast<std::size_t>(rank)])->close();
  });
}

TEST(World, FingerprintDifferenceIsToldToAll) {
  const Listener listener = listen_on_free_port();
  auto options = world_options(3, listener);
  for (WorldOptions& own : options) own.fingerprint = {{"threads", "1"}, {"vectors", "avx512"}};
  options[2].fingerprint[1].second = "avx2";
  EXPECT_THAT(join_all(options),
              Each(AllOf(HasSubstr("ConfigError: ranks 0 ("), HasSubstr("and 2 ("),
                         HasSubstr("do not agree on vectors: 'avx512' and 'avx2'"))));
}

TEST(World, FingerprintKeyThatOneLacksIsADifference) {
  const Listener listener = listen_on_free_port();
  auto options = world_options(2, listener);
  options[1].fingerprint = {{"config", "c0ffee"}};
  EXPECT_THAT(join_all(options), Each(HasSubstr("do not agree on config: nothing and 'c0ffee'")));
}

TEST(World, AnotherEngineIsToldToAll) {
  const Listener listener = listen_on_free_port();
  auto options = world_options(3, listener);
  options[1].engine = "gloo";
  EXPECT_THAT(join_all(options), Each(AllOf(HasSubstr("ConfigError: ranks 0 ("),
                                            HasSubstr("do not agree on the engine: 'auto' and "
                                                      "'gloo'"))));
}

TEST(World, AnotherProtocolVersionIsToldToBoth) {
  const Listener listener = listen_on_free_port();
  const auto options = world_options(2, listener);
  run_rank_threads(2, [&](int thread) {
    if (thread == 0) {
      EXPECT_THAT(join_all({options[0]}),
                  Each(AllOf(HasSubstr("ConfigError: rank 1 at 127.0.0.1 speaks version 99"),
                             HasSubstr("rank 0 version 3"))));
      return;
    }
    const std::string hello = encode_hello({1, 2, make_nonce(), 99});
    Stranger newer(listener.port, encode_frame(FrameType::kHello, hello));
    const std::string nonce = newer.hear_frame().payload.substr(0, kNonceBytes);
    newer.say(encode_frame(FrameType::kProof,
                           make_proof(Prover::kMember, options[1].secret, hello, nonce)));
    EXPECT_THAT(newer.wait_for_end(), HasSubstr("speaks version 99"));
  });
}

TEST(World, AnotherSizeIsToldToBoth) {
  const Listener listener = listen_on_free_port();
  auto options = world_options(3, listener);
  options[1].size = 2;
  EXPECT_THAT(
      join_all({options[0], options[1]}),
      Each(HasSubstr("ConfigError: rank 1 at 127.0.0.1 was told that the world has 2 ranks, "
                     "rank 0 that it has 3")));
}

TEST(World, RankThatComesTwiceIsToldToAll) {
  const Listener listener = listen_on_free_port();
  const auto options = world_options(3, listener);
  EXPECT_THAT(join_all({options[0], options[1], options[1]}),
              Each(HasSubstr("ConfigError: two processes say that they are rank 1")));
}

TEST(World, WrongSecretIsRefusedAndDisturbsNobody) {
  const Listener listener = listen_on_free_port();
  const auto options = world_options(2, listener);
  std::atomic<bool> refused = false;
  run_rank_threads(3, [&](int thread) {
    if (thread == 2) {
      WorldOptions impostor = options[1];
      impostor.secret = "another secret";
      EXPECT_THAT(join_all({impostor})[0], HasSubstr("has another secret than rank 1"));
      refused = true;
      return;
    }
    while (thread == 1 && !refused) std::this_thread::yield();
    join_world(options[static_cast<std::size_t>(thread)])->close();
  });
}

TEST(World, StrangersAreRefusedWhileOthersJoin) {
  const Listener listener = listen_on_free_port();
  const auto options = world_options(3, listener);
  std::atomic<bool> bothered = false;
  run_rank_threads(4, [&](int thread) {
    if (thread < 3) {
      // The last rank comes when the strangers have had their turn.
      while (thread == 2 && !bothered) std::this_thread::yield();
      join_world(options[static_cast<std::size_t>(thread)])->close();
      return;
    }
    const std::string hello_of_nobody = encode_frame(FrameType::kHello, std::string(52, 'x'));
    const std::string proof_unasked = encode_frame(FrameType::kProof, std::string(32, 'x'));
    const std::string huge("\xff\xff\xff\x7f\x01 and so on", 16);
    std::vector<Stranger> loud;
    for (const std::string& text :
         {std::string("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), std::string("\x16\x03\x01\x02", 5),
          std::string(100000, 'z'), hello_of_nobody, proof_unasked, huge}) {
      loud.emplace_back(listener.port, text);
    }
    // Nothing about the job is said to any of them.
    for (Stranger& stranger : loud) EXPECT_EQ(stranger.wait_for_end(), "");
    // More than there are places: the oldest go at once, the others when their time is over.
    std::vector<Stranger> silent;
    for (std::size_t i = 0; i < kMaxStrangers + 20; ++i) {
      silent.emplace_back(listener.port, std::string(i % 2 == 0 ? 0 : 4, '\0'));
    }
    for (Stranger& stranger : silent) EXPECT_EQ(stranger.wait_for_end(), "");
    bothered = true;
  });
}

// Knows the protocol but not the secret: guesses a proof, or sends rank 0's own back.
TEST(World, WrongProofsAreRefused) {
  for (const bool reflected : {false, true}) {
    const Listener listener = listen_on_free_port();
    const auto options = world_options(2, listener);
    std::atomic<bool> refused = false;
    run_rank_threads(3, [&](int thread) {
      if (thread < 2) {
        while (thread == 1 && !refused) std::this_thread::yield();
        join_world(options[static_cast<std::size_t>(thread)])->close();
        return;
      }
      Stranger impostor(listener.port,
                        encode_frame(FrameType::kHello, encode_hello({1, 2, make_nonce()})));
      const std::string challenge = impostor.hear_frame().payload;
      ASSERT_EQ(challenge.size(), kNonceBytes + kProofBytes);
      impostor.say(encode_frame(FrameType::kProof, reflected ? challenge.substr(kNonceBytes)
                                                             : std::string(kProofBytes, 'p')));
      EXPECT_EQ(impostor.wait_for_end(), "");
      refused = true;
    });
  }
}

// A proof that was right once is worth nothing on another connection.
TEST(World, ReplayedProofIsRefused) {
  const Listener listener = listen_on_free_port();
  const auto options = world_options(2, listener);
  std::atomic<bool> refused = false;
  run_rank_threads(3, [&](int thread) {
    if (thread < 2) {
      while (thread == 1 && !refused) std::this_thread::yield();
      join_world(options[static_cast<std::size_t>(thread)])->close();
      return;
    }
    const std::string hello = encode_hello({1, 2, make_nonce()});
    std::string proof;
    {
      Stranger witness(listener.port, encode_frame(FrameType::kHello, hello));
      const std::string nonce = witness.hear_frame().payload.substr(0, kNonceBytes);
      proof = make_proof(Prover::kMember, options[0].secret, hello, nonce);
    }
    Stranger replay(listener.port, encode_frame(FrameType::kHello, hello));
    replay.hear_frame();
    replay.say(encode_frame(FrameType::kProof, proof));
    EXPECT_EQ(replay.wait_for_end(), "");
    refused = true;
  });
}

// A stranger's flood fills neither the log nor the table of open files.
TEST(World, FloodOfStrangersIsCountedNotLogged) {
  const Listener listener = listen_on_free_port();
  const auto options = world_options(2, listener);
  ::testing::internal::CaptureStderr();
  std::atomic<bool> bothered = false;
  run_rank_threads(3, [&](int thread) {
    if (thread < 2) {
      while (thread == 1 && !bothered) std::this_thread::yield();
      join_world(options[static_cast<std::size_t>(thread)])->close();
      return;
    }
    for (int i = 0; i < 300; ++i) Stranger(listener.port, "nonsense").wait_for_end();
    bothered = true;
  });
  std::istringstream log(::testing::internal::GetCapturedStderr());
  int lines = 0;
  std::string total;
  for (std::string line; std::getline(log, line);) {
    lines += line.find("refused") != std::string::npos ? 1 : 0;
    if (line.find("in all") != std::string::npos) total = line;
  }
  EXPECT_LE(lines, 20);
  EXPECT_THAT(total, HasSubstr("300 in all"));
}

// Rank 0 may open few files, and strangers hold them all: who waits comes in for the oldest.
TEST(World, StrangersDoNotUseUpTheDescriptors) {
  const Listener listener = listen_on_free_port();
  const auto options = world_options(2, listener);
  std::vector<Stranger> silent;
  for (std::size_t i = 0; i < kMaxStrangers; ++i) silent.emplace_back(listener.port, "");
  RankProcess zero(0, [&] {
    const int next = dup(0);
    const rlimit few{static_cast<rlim_t>(next + 16), static_cast<rlim_t>(next + 16)};
    if (next < 0 || setrlimit(RLIMIT_NOFILE, &few) != 0) return std::string("no limit");
    join_world(options[0])->close();
    return std::string("joined");
  });
  ::close(listener.fd);
  RankProcess one(1, [&] {
    join_world(options[1])->close();
    return std::string("joined");
  });
  // Waiting for so many to be too slow would take longer.
  EXPECT_EQ(one.result(Deadline::after(3 * kStrangerTime)), "joined");
  EXPECT_EQ(zero.result(), "joined");
}

// Members are served while all places are taken by strangers who say nothing.
TEST(World, StrangersTakeNobodysPlace) {
  const Listener listener = listen_on_free_port();
  const auto options = world_options(2, listener);
  std::vector<Stranger> silent;
  for (std::size_t i = 0; i < kMaxStrangers; ++i) silent.emplace_back(listener.port, "");
  const auto begin = Deadline::Clock::now();
  EXPECT_THAT(join_all(options), Each(""));
  EXPECT_LT(Deadline::Clock::now() - begin, kStrangerTime);
}

TEST(World, EngineFollowsTheHosts) {
  const auto two_hosts = [](const WorldOptions& options) -> std::string {
    setenv("TRIREME_HOST_ID", options.rank < 2 ? "left" : "right", 1);
    const auto world = join_world(options);
    const auto here =
        world->split("here", options.rank < 2 ? std::vector<int>{0, 1} : std::vector<int>{2});
    const auto across = world->split("across", {0, 1, 2});
    std::vector<float> data(5000, static_cast<float>(options.rank + 1));
    world->all_reduce(buffer_of(std::span(data)));
    here->barrier();
    across->barrier();
    const std::string engines = std::string(world->engine()) + " " + std::string(here->engine()) +
                                " " + std::string(across->engine()) + " " +
                                std::to_string(data[4999]);
    world->close();
    return engines;
  };
  auto ranks = start_processes(3, two_hosts);
  EXPECT_EQ(ranks[0].result(), "shm+gloo shm shm+gloo 6.000000");
  EXPECT_EQ(ranks[1].result(), "shm+gloo shm shm+gloo 6.000000");
  EXPECT_EQ(ranks[2].result(), "shm+gloo self shm+gloo 6.000000");

  auto refused = start_processes(3, two_hosts, "shm");
  for (RankProcess& rank : refused) {
    EXPECT_THAT(rank.result(), AllOf(HasSubstr("ConfigError: the shm engine was asked for"),
                                     HasSubstr("rank 2 of 3")));
  }
}

// On a port that is free; skips where there is no IPv6.
TEST(World, MeetsOverIpv6) {
  for (const char* engine : {"auto", "gloo"}) {
    FileDescriptor six;
    try {
      six = listen_on("::1", 0);
    } catch (const ConfigError& error) {
      GTEST_SKIP() << "no IPv6: " << error.what();
    }
    Listener listener{six.release(), 0};
    listener.port = port_of(listener.fd);
    auto options = world_options(3, listener, engine);
    for (WorldOptions& own : options) own.address = "::1";
    EXPECT_THAT(join_all(options), Each("")) << engine;
  }
}

TEST(World, EndpointsReadAsOne) {
  EXPECT_EQ(endpoint_text("::1", 29500), "[::1]:29500");
  EXPECT_EQ(endpoint_text("10.0.0.1", 29500), "10.0.0.1:29500");
}

// An address that leads here by a way of its own, as through a router, is listened for everywhere.
TEST(World, ListensOnAllInterfacesForAnAddressOfNone) {
  const FileDescriptor listener = listen_on("192.0.2.1", 0);
  const int port = port_of(listener.get());
  for (const char* address : {"127.0.0.1", "::1"}) {
    std::string why;
    const auto fd = connect_to(address, port, Deadline::after(kTestDeadline), why);
    if (!fd && std::string(address) == "::1") continue;  // a host without IPv6
    EXPECT_TRUE(fd) << address << ": " << why;
  }
}

TEST(World, GlooBindsToTheInterfaceThatIsAskedFor) {
  const Listener listener = listen_on_free_port();
  auto options = world_options(2, listener, "gloo");
  options[0].network_interface = "lo";
  options[1].network_interface = "127.0.0.1";
  EXPECT_THAT(join_all(options), Each(""));

  const Listener second = listen_on_free_port();
  options = world_options(2, second, "gloo");
  for (WorldOptions& own : options) own.network_interface = "nosuchinterface0";
  EXPECT_THAT(join_all(options),
              Each(AllOf(HasSubstr("ConfigError"), HasSubstr("nosuchinterface0"))));
}

}  // namespace
}  // namespace trireme
