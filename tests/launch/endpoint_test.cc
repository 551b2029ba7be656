// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/endpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "trireme/base/error.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

void expect_endpoint(const std::string& text, const std::string& address, int port) {
  const Endpoint endpoint = parse_endpoint(text, "--rendezvous " + text);
  EXPECT_EQ(endpoint.address, address) << text;
  EXPECT_EQ(endpoint.port, port) << text;
}

TEST(Endpoint, HostAndPort) {
  expect_endpoint("host0:29500", "host0", 29500);
  expect_endpoint("10.0.0.7:1", "10.0.0.7", 1);
  expect_endpoint("[2001:db8::1]:65535", "2001:db8::1", 65535);
}

TEST(Endpoint, RefusesOthersInTheUsersWords) {
  for (const char* text : {"", "host0", "host0:", ":29500", "host0:0", "host0:65536", "host0:-1",
                           "host0:29500x", "host0: 29500", "[]:29500", "2001:db8::1:29500"}) {
    const std::string said = std::string("--rendezvous ") + text;
    try {
      parse_endpoint(text, said);
      ADD_FAILURE() << "accepted: " << text;
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr(said));
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
  }
  try {
    parse_endpoint("2001:db8::1:29500", "");
    ADD_FAILURE();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("brackets"));
  }
}

}  // namespace
}  // namespace trireme
