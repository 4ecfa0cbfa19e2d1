package main

func lyingNodeMain() {}
