package gossip_test

const childEnv = "HIGHLANDER_GOSSIP_TEST_CHILD"

func childMain() {}
