"""What ``planner serve`` adds to a session, and MLPerf LoadGen as driver of both."""
