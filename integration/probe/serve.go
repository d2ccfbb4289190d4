package main

import (
	"context"
	"fmt"
	"io"
	"net"
)

// serve echoes everything that it receives, on all addresses, until it is ended. It
// prints "serving" when it listens on all of them, and then a line for each TCP
// connection and each new UDP sender, with the client's address as it sees it.
func serve(ctx context.Context, args []string) error {
	protocol := ""
	listening := 0
	for _, arg := range args {
		if arg == "tcp" || arg == "udp" {
			protocol = arg
			continue
		}
		var err error
		switch protocol {
		case "tcp":
			err = serveTCP(ctx, arg)
		case "udp":
			err = serveUDP(ctx, arg)
		default:
			return fmt.Errorf("%w: tcp or udp goes before %q", errUsage, arg)
		}
		if err != nil {
			return err
		}
		listening++
	}
	if listening == 0 {
		return fmt.Errorf("%w: no address", errUsage)
	}
	fmt.Println("serving", args)
	<-ctx.Done()
	return nil
}

func serveTCP(ctx context.Context, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		l.Close()
	}()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Println("tcp", conn.LocalAddr(), "from", conn.RemoteAddr())
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return nil
}

func serveUDP(ctx context.Context, addr string) error {
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		conn.Close()
	}()
	go func() {
		buf := make([]byte, 64<<10)
		last := ""
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				if ctx.Err() != nil {
					return
				}
				continue // an ICMP error for an earlier answer
			}
			conn.WriteTo(buf[:n], from)
			if from.String() != last {
				last = from.String()
				fmt.Println("udp", addr, "from", last)
			}
		}
	}()
	return nil
}
